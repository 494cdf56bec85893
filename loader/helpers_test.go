// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/bpf"
	"github.com/zipline-cni/zipline/internal/testrig"
	"github.com/zipline-cni/zipline/internal/testutil"
)

// enterNode moves the test to a network and mount namespace of its own, with an
// empty /run and a new bpffs, where it stays: its thread ends with it.
func enterNode(tb testing.TB) {
	tb.Helper()
	testutil.RequireRoot(tb)
	runtime.LockOSThread()
	must(tb, unix.Unshare(unix.CLONE_NEWNET|unix.CLONE_NEWNS))
	must(tb, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	must(tb, unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=0755"))
	must(tb, unix.Mount("bpf", "/sys/fs/bpf", "bpf", 0, "mode=0700"))
	lo, err := netlink.LinkByName("lo")
	must(tb, err)
	must(tb, netlink.LinkSetUp(lo))
}

// enterMounts moves the test to another mount namespace of the same node, as
// `ip netns exec` does: with a new /sys, and no bpffs in it.
func enterMounts(tb testing.TB) {
	tb.Helper()
	must(tb, unix.Unshare(unix.CLONE_NEWNS))
	must(tb, unix.Unmount("/sys", unix.MNT_DETACH))
	must(tb, unix.Mount("sysfs", "/sys", "sysfs", 0, ""))
}

// requireTCX skips a test that is about TCX on a kernel without.
func requireTCX(tb testing.TB) {
	tb.Helper()
	testutil.RequireKernel(tb, "tcx", HaveTCX())
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatalf("%+v", err)
	}
}

func mustOpen(tb testing.TB, s Site, index int) *Node {
	tb.Helper()
	n, err := s.Open(index)
	must(tb, err)
	tb.Cleanup(func() { _ = n.Close() })
	return n
}

func mustFind(tb testing.TB, index int) *Node {
	tb.Helper()
	n, err := Find(index)
	must(tb, err)
	tb.Cleanup(func() { _ = n.Close() })
	return n
}

// container is a network namespace with a veth to the node.
type container struct {
	netns    *os.File
	index    int // of the host veth
	mac      net.HardwareAddr
	hostMAC  net.HardwareAddr
	prefixes []netip.Prefix
}

// newContainer makes a container with addresses on its eth0, all routes on
// link, and a host veth without any address: the stack forwards nothing.
func newContainer(tb testing.TB, number int, prefixes ...string) *container {
	tb.Helper()
	c := &container{netns: newNetns(tb)}
	veth := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: "eth0", PeerNamespace: netlink.NsFd(int(c.netns.Fd()))}
	veth.Name = fmt.Sprintf("zl%013x", number)
	veth.Group = group
	must(tb, netlink.LinkAdd(veth))
	host, err := netlink.LinkByName(veth.Name)
	must(tb, err)
	must(tb, netlink.LinkSetUp(host))
	c.index, c.hostMAC = host.Attrs().Index, host.Attrs().HardwareAddr
	for _, p := range prefixes {
		c.prefixes = append(c.prefixes, netip.MustParsePrefix(p))
	}
	must(tb, c.do(c.setUp))
	return c
}

func (c *container) setUp() error {
	eth0, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	c.mac = eth0.Attrs().HardwareAddr
	for _, p := range c.prefixes {
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
		if p.Addr().Is6() {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := netlink.AddrAdd(eth0, addr); err != nil {
			return err
		}
	}
	return netlink.LinkSetUp(eth0)
}

// do runs f on a thread of its own in the container.
func (c *container) do(f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends here
		if err := unix.Setns(int(c.netns.Fd()), unix.CLONE_NEWNET); err != nil {
			result <- err
			return
		}
		result <- f()
	}()
	return <-result
}

func (c *container) endpoint() Endpoint {
	return Endpoint{
		IfIndex: c.index, MTU: 1500, Network: 1, ContainerMAC: c.mac, HostMAC: c.hostMAC,
		SourceCheck: true, Direct: true,
	}
}

// publish attaches the program to the container's device and enters all its
// addresses, each family a network of its own.
func (c *container) publish(tb testing.TB, s Site) *Node {
	tb.Helper()
	n := mustOpen(tb, s, c.index)
	for _, p := range c.prefixes {
		ep := c.endpoint()
		ep.Network = uint64(p.Addr().BitLen())
		must(tb, n.Upsert(p.Addr(), ep))
	}
	return n
}

func newNetns(tb testing.TB) *os.File {
	tb.Helper()
	type result struct {
		file *os.File
		err  error
	}
	made := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends here
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			made <- result{err: err}
			return
		}
		file, err := os.Open("/proc/thread-self/ns/net")
		made <- result{file, err}
	}()
	r := <-made
	must(tb, r.err)
	tb.Cleanup(func() { _ = r.file.Close() })
	return r.file
}

// wantError fails the test unless err is target.
func wantError(tb testing.TB, err, target error) {
	tb.Helper()
	if !errors.Is(err, target) {
		tb.Fatalf("got error %v, want %v", err, target)
	}
}

// addDevice makes a host veth with its other end in the node, which costs less
// than a container, and returns its index.
func addDevice(tb testing.TB, number int) int {
	tb.Helper()
	veth := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: fmt.Sprintf("peer%d", number)}
	veth.Name = fmt.Sprintf("zl%013x", number)
	veth.Group = group
	must(tb, netlink.LinkAdd(veth))
	return veth.Index
}

// newContainerInGroup makes a host veth in another link group.
func newContainerInGroup(tb testing.TB, number int, group uint32) int {
	tb.Helper()
	index := addDevice(tb, number)
	device, err := netlink.LinkByIndex(index)
	must(tb, err)
	must(tb, netlink.LinkSetGroup(device, int(group)))
	return index
}

// hideDevice takes a device out of our link group, or puts it back.
func hideDevice(tb testing.TB, c *container, hide bool) {
	tb.Helper()
	device, err := netlink.LinkByIndex(c.index)
	must(tb, err)
	to := group
	if hide {
		to = 0
	}
	must(tb, netlink.LinkSetGroup(device, to))
}

// Sixteen processes that load programs wait for each other: on an emulated
// machine longer than on a real one.
func init() { lockPatience *= testrig.Slowness }

// shortenPatience makes locks give up soon, until the returned function is called.
func shortenPatience() func() {
	was := lockPatience
	lockPatience = 20 * time.Millisecond
	return func() { lockPatience = was }
}

// mustCPUs returns a row of a per-CPU map: one value for each possible CPU.
func mustCPUs(tb testing.TB, m *ebpf.Map) (row []bpf.ZiplineCounter) {
	tb.Helper()
	must(tb, m.Lookup(uint32(0), &row))
	return row
}
