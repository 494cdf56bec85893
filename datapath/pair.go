// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"net"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/nlink"
)

// Endpoint is the veth pair of an attachment, made but not yet addressed.
type Endpoint struct {
	Pair
	Index   int              // ifindex of the host veth
	HostMAC net.HardwareAddr // of the host veth

	netns    ns.NetNS
	offload  uint32
	attached <-chan attached // nil without programs
}

// Close releases the handles on the container's namespace and the programs;
// the endpoint stays.
func (e *Endpoint) Close() error {
	if e.attached == nil {
		return e.netns.Close()
	}
	return errors.Join(e.netns.Close(), (<-e.attached).close())
}

// CreatePair makes the veth pair and brings the host veth up, ready for an
// IPAM plugin that speaks on the wire. Where the mode uses the programs, they
// are attached meanwhile. It returns ErrNetns, ErrOwnNetns or
// ErrExists (wrapped) with nothing created. A host veth of this name means that
// the attachment exists, here or in another namespace: a pair ends with either
// of its ends.
func CreatePair(p Pair) (*Endpoint, error) {
	netns, err := openNetns(p.Netns)
	if err != nil {
		return nil, err
	}
	e, err := createPair(p, netns)
	if err != nil {
		_ = netns.Close() // read-only descriptor
		return nil, err
	}
	if p.accelerated() {
		e.attached = attach(e.Index)
	}
	return e, nil
}

func openNetns(path string) (ns.NetNS, error) {
	netns, err := ns.GetNS(path)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w: %w", path, ErrNetns, err)
	}
	if kind, err := unix.IoctlRetInt(int(netns.Fd()), unix.NS_GET_NSTYPE); err == nil && kind != unix.CLONE_NEWNET {
		_ = netns.Close() // read-only descriptor
		return nil, fmt.Errorf("open %s: %w: it is a namespace of another kind", path, ErrNetns)
	}
	own, err := isOwnNetns(netns)
	if err == nil && own {
		err = fmt.Errorf("open %s: %w", path, ErrOwnNetns)
	}
	if err != nil {
		_ = netns.Close() // read-only descriptor
		return nil, err
	}
	return netns, nil
}

func isOwnNetns(netns ns.NetNS) (bool, error) {
	var own, other unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &own); err != nil {
		return false, fmt.Errorf("stat own network namespace: %w", err)
	}
	if err := unix.Fstat(int(netns.Fd()), &other); err != nil {
		return false, fmt.Errorf("stat %s: %w: %w", netns.Path(), ErrNetns, err)
	}
	return own.Dev == other.Dev && own.Ino == other.Ino, nil
}

func createPair(p Pair, netns ns.NetNS) (*Endpoint, error) {
	mtu, offload, err := deviceLimits(p)
	if err != nil {
		return nil, err
	}
	if p.MAC == nil {
		p.MAC = p.containerMAC()
	}
	p.MTU = mtu
	e := &Endpoint{Pair: p, HostMAC: p.hostMAC(), netns: netns, offload: offload}
	veth := e.veth()
	err = netlink.LinkAdd(veth)
	if errors.Is(err, unix.EEXIST) {
		err = fmt.Errorf("%s in %s or %s: %w", e.IfName, e.Netns, veth.Name, ErrExists)
	}
	if err != nil {
		return nil, fmt.Errorf("create veth pair %s: %w", veth.Name, err)
	}
	e.Index = veth.Index
	if err := e.prepareHost(); err != nil {
		if undo := netlink.LinkDel(veth); undo != nil {
			err = fmt.Errorf("%w; delete %s: %w", err, veth.Name, undo)
		}
		return nil, err
	}
	return e, nil
}

func (e *Endpoint) veth() *netlink.Veth {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = e.Device()
	attrs.MTU = e.MTU
	attrs.HardwareAddr = e.HostMAC
	attrs.Group = Group
	if !e.SourceCheck {
		attrs.Group = GroupUnchecked
	}
	return &netlink.Veth{
		LinkAttrs:        attrs,
		PeerName:         e.IfName,
		PeerHardwareAddr: e.MAC,
		PeerNamespace:    netlink.NsFd(int(e.netns.Fd())),
		PeerMTU:          uint32(e.MTU),
	}
}

// prepareHost sets what the host veth needs whatever its addresses are.
func (e *Endpoint) prepareHost() error {
	change := nlink.LinkChange{
		Up:    true,
		Alias: e.alias(),
		// Routing between endpoints needs forwarding on the device a packet
		// enters by; proxy ARP answers for exactly what the node can route.
		Conf4:        map[int]uint32{nlink.ConfForwarding: 1, nlink.ConfProxyARP: 1},
		NoLinkLocal6: e.haveIPv6(),
	}
	if err := nlink.SetLink(e.Index, change); err != nil {
		return err
	}
	if err := e.setOffload(e.Index); err != nil {
		return err
	}
	// The kernel delays proxy ARP answers by up to 0.8 s by default, to let
	// the real owner speak first (arp(7), proxy_delay). Nobody else can here.
	if err := writeSysctl("ipv4/neigh/"+e.Device()+"/proxy_delay", "0"); err != nil {
		return err
	}
	if !e.haveIPv6() {
		return nil
	}
	// A container must not give the node routes or addresses.
	return writeSysctls("ipv6/conf/"+e.Device(), map[string]string{"accept_ra": "0", "accept_redirects": "0"})
}

// setOffload raises the GSO and GRO limits of IPv4. A kernel without BIG TCP
// for IPv4 (before 6.3) refuses or ignores it; only "on" makes that an error.
//
// IPv6 keeps its limit: there such a packet carries a jumbo header, which the
// kernel counts as part of each segment when it forwards (ip6_pkt_too_big,
// skb_gso_validate_network_len), so that no packet of full segments fits the
// MTU. Whatever goes through the stack, and each flow does, would crawl.
func (e *Endpoint) setOffload(index int) error {
	if e.offload == 0 {
		return nil
	}
	err := nlink.SetLink(index, nlink.LinkChange{OffloadSize4: e.offload})
	if e.BigTCP != BigTCPOn {
		return nil
	}
	if err == nil {
		err = checkOffload(index, e.offload)
	}
	if err != nil {
		return &UnsupportedError{Key: "bigTCP", Reason: err}
	}
	return nil
}

var errNoBigTCP = errors.New("the kernel has no BIG TCP for IPv4")

func checkOffload(index int, size uint32) error {
	link, err := netlink.LinkByIndex(index)
	if err != nil {
		return fmt.Errorf("read device %d: %w", index, err)
	}
	if link.Attrs().GSOIPv4MaxSize != size {
		return errNoBigTCP
	}
	return nil
}

func isNotFound(err error) bool {
	var notFound netlink.LinkNotFoundError
	return errors.As(err, &notFound) || errors.Is(err, unix.ENODEV)
}
