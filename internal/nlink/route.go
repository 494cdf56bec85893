// SPDX-License-Identifier: Apache-2.0

package nlink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	mdlayher "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// ErrInterrupted says that the table changed during a dump so often that no
// consistent answer could be had (NLM_F_DUMP_INTR).
var ErrInterrupted = errors.New("route dump interrupted")

// dumpTries bounds how often an interrupted dump is repeated.
const dumpTries = 20

// RouteFilter selects routes. The kernel applies Device and Protocol itself
// (strict checking, Linux 4.20); an older one returns everything and the
// routes are filtered here.
type RouteFilter struct {
	Family   int   // unix.AF_INET or unix.AF_INET6
	Device   int   // ifindex; 0 = any
	Protocol uint8 // rtm_protocol; 0 = any
}

// Route is what a dump tells of one route of the main table.
type Route struct {
	Dst      netip.Prefix
	Device   int    // ifindex, 0 for unreachable and its like
	Priority uint32 // metric
	Type     uint8  // RTN_…
	Protocol uint8  // RTPROT_…
	MTU      uint32 // of the route itself, 0 where it has none
	NextHops []int  // ifindexes of a multipath route, which has no Device
}

// EachRoute calls f for the routes of the main table that match, until f
// returns false. Stopping early ends the dump: the kernel fills one buffer
// (32 KiB) at a time, so asking for the first few routes costs the same in a
// table of any size. An interrupted dump that was not stopped early is
// repeated from the start, so f may see a route twice; ErrInterrupted is
// returned when the table does not come to rest.
func EachRoute(filter RouteFilter, f func(Route) bool) error {
	for range dumpTries {
		interrupted, err := dumpRoutes(filter, f)
		if err != nil {
			return fmt.Errorf("dump routes: %w", err)
		}
		if !interrupted {
			return nil
		}
	}
	return ErrInterrupted
}

func dumpRoutes(filter RouteFilter, f func(Route) bool) (interrupted bool, err error) {
	sock, err := nl.Subscribe(unix.NETLINK_ROUTE)
	if err != nil {
		return false, err
	}
	defer sock.Close()
	// Without strict checking (before 4.20) the kernel ignores the filter.
	_ = unix.SetsockoptInt(sock.GetFd(), unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1)
	if err := sock.Send(routeDump(filter)); err != nil {
		return false, err
	}
	for {
		messages, _, err := sock.Receive()
		if err != nil {
			return false, err
		}
		for _, m := range messages {
			if m.Header.Flags&unix.NLM_F_DUMP_INTR != 0 {
				interrupted = true
			}
			switch m.Header.Type {
			case unix.NLMSG_DONE:
				return interrupted, nil
			case unix.NLMSG_ERROR:
				return false, errorOf(m)
			case unix.RTM_NEWROUTE:
				route, ok := ParseRoute(m.Data)
				if ok && filter.match(route) && !f(route) {
					return false, nil
				}
			}
		}
	}
}

func routeDump(filter RouteFilter) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(unix.RTM_GETROUTE, unix.NLM_F_DUMP)
	req.AddData(&nl.RtMsg{RtMsg: unix.RtMsg{Family: uint8(filter.Family), Table: unix.RT_TABLE_MAIN, Protocol: filter.Protocol}})
	if filter.Device != 0 {
		req.AddData(nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(uint32(filter.Device))))
	}
	return req
}

func errorOf(m syscall.NetlinkMessage) error {
	if len(m.Data) < 4 {
		return unix.EBADMSG
	}
	return syscall.Errno(-int32(binary.NativeEndian.Uint32(m.Data)))
}

func (f RouteFilter) match(r Route) bool {
	return (f.Device == 0 || f.Device == r.Device) && (f.Protocol == 0 || f.Protocol == r.Protocol)
}

// ParseRoute reads one RTM_NEWROUTE of the main table; false for others.
func ParseRoute(data []byte) (Route, bool) {
	if len(data) < unix.SizeofRtMsg {
		return Route{}, false
	}
	family, bits, table := data[0], int(data[1]), data[4]
	route := Route{Protocol: data[5], Type: data[7]}
	if table != unix.RT_TABLE_MAIN {
		return Route{}, false
	}
	addr := netip.IPv4Unspecified()
	if family == unix.AF_INET6 {
		addr = netip.IPv6Unspecified()
	}
	attrs, err := mdlayher.NewAttributeDecoder(data[unix.SizeofRtMsg:])
	if err != nil {
		return Route{}, false
	}
	for attrs.Next() {
		switch attrs.Type() {
		case unix.RTA_DST:
			if dst, ok := netip.AddrFromSlice(attrs.Bytes()); ok {
				addr = dst
			}
		case unix.RTA_OIF:
			route.Device = int(attrs.Uint32())
		case unix.RTA_PRIORITY:
			route.Priority = attrs.Uint32()
		case unix.RTA_METRICS:
			attrs.Nested(func(metrics *mdlayher.AttributeDecoder) error {
				for metrics.Next() {
					if metrics.Type() == unix.RTAX_MTU {
						route.MTU = metrics.Uint32()
					}
				}
				return nil
			})
		case unix.RTA_MULTIPATH:
			route.NextHops = parseNextHops(attrs.Bytes())
		}
	}
	if attrs.Err() != nil {
		return Route{}, false
	}
	route.Dst = netip.PrefixFrom(addr, bits)
	return route, true
}

// parseNextHops reads the devices of RTA_MULTIPATH (struct rtnexthop, rtnetlink(7)).
func parseNextHops(data []byte) (indexes []int) {
	for len(data) >= unix.SizeofRtNexthop {
		length := int(binary.NativeEndian.Uint16(data))
		if length < unix.SizeofRtNexthop || length > len(data) {
			break
		}
		indexes = append(indexes, int(binary.NativeEndian.Uint32(data[4:])))
		data = data[min((length+3)&^3, len(data)):]
	}
	return indexes
}
