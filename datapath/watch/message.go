// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"encoding/binary"
	"net/netip"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/datapath"
	"github.com/zipline-cni/zipline/internal/nlink"
)

// handle takes one announcement. One that cannot be read is of no object of ours.
func (w *watcher) handle(m syscall.NetlinkMessage) {
	switch m.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		w.handleLink(m)
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		w.handleAddress(m)
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		if r, ok := nlink.ParseRoute(m.Data); ok && r.Protocol == datapath.RouteProtocol {
			index := r.Device
			if r.Type == unix.RTN_UNREACHABLE {
				index = 0 // of IPv6 it is lo's
			}
			w.route(m.Header.Type == unix.RTM_NEWROUTE, r.Dst, index)
		}
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		w.handleNeighbour(m)
	}
}

func (w *watcher) handleLink(m syscall.NetlinkMessage) {
	// Bridges announce their ports in a family of their own (AF_BRIDGE).
	if len(m.Data) < unix.SizeofIfInfomsg || m.Data[0] != unix.AF_UNSPEC {
		return
	}
	header := unix.NlMsghdr{Len: m.Header.Len, Type: m.Header.Type, Flags: m.Header.Flags, Seq: m.Header.Seq, Pid: m.Header.Pid}
	link, err := netlink.LinkDeserialize(&header, m.Data)
	if err != nil {
		return
	}
	if m.Header.Type == unix.RTM_DELLINK {
		w.unlink(link.Attrs().Index)
	} else if e, ours := datapath.AttachedBy(link); ours {
		w.link(e)
		// The kernel announces no removal of IPv4 routes by a device that goes down
		// (fib_sync_down_dev in net/ipv4/fib_semantics.c).
		if link.Attrs().RawFlags&unix.IFF_UP == 0 {
			w.flush(e, "its device is down", netip.Addr.Is4)
		}
	} else {
		w.unlink(link.Attrs().Index) // somebody took it out of our group
	}
}

func (w *watcher) handleAddress(m syscall.NetlinkMessage) {
	if len(m.Data) < unix.SizeofIfAddrmsg {
		return
	}
	bits, index := int(m.Data[1]), int(binary.NativeEndian.Uint32(m.Data[4:]))
	e, known := w.links[index]
	attributes, err := syscall.ParseNetlinkRouteAttr(&m)
	if err != nil || !known {
		return
	}
	var address netip.Addr
	for _, a := range attributes {
		// IFA_LOCAL is the device's own where the two differ.
		if a.Attr.Type == unix.IFA_LOCAL || a.Attr.Type == unix.IFA_ADDRESS && !address.IsValid() {
			address, _ = netip.AddrFromSlice(a.Value)
		}
	}
	kind := AddressAdded
	if m.Header.Type == unix.RTM_DELADDR {
		kind = AddressGone
	}
	w.send(kind, e, netip.PrefixFrom(address, bits), "")
}

func (w *watcher) handleNeighbour(m syscall.NetlinkMessage) {
	neigh, err := netlink.NeighDeserialize(m.Data)
	if err != nil || neigh == nil || neigh.Family != unix.AF_INET && neigh.Family != unix.AF_INET6 {
		return
	}
	addr, ok := netip.AddrFromSlice(neigh.IP)
	n, mac := neighbour{neigh.LinkIndex, addr.Unmap()}, neigh.HardwareAddr.String()
	switch {
	// The kernel makes entries for groups by itself.
	case !ok || n.addr.IsMulticast() || neigh.State == netlink.NUD_NOARP:
	case m.Header.Type == unix.RTM_DELNEIGH:
		w.forgetNeighbour(n, mac)
	case mac != "":
		w.setNeighbour(n, mac)
	}
}
