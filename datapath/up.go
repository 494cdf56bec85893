// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// upDelays are the pauses between looks at a device that is not up yet; the
// last ones are those of the bridge plugin.
var upDelays = []time.Duration{
	time.Millisecond, 5 * time.Millisecond, 20 * time.Millisecond,
	50 * time.Millisecond, 500 * time.Millisecond, time.Second, time.Second,
}

var (
	errNotUp    = errors.New("device does not come up")
	errNotLocal = errors.New("the kernel does not take the address into use")
)

// waitUp waits until a device can send. The end of a pair that was opened
// first is only activated when the kernel has handled the carrier's event;
// until then it drops what is sent. To ask for the device makes the kernel
// handle it at once (rtnl_getlink, Linux 6.9), so the first look mostly suffices.
func waitUp(index int) error {
	for i := 0; ; i++ {
		link, err := netlink.LinkByIndex(index)
		if err != nil {
			return fmt.Errorf("read device %d: %w", index, err)
		}
		if link.Attrs().OperState == netlink.OperUp {
			return nil
		}
		if i == len(upDelays) {
			return fmt.Errorf("wait for device %d: %w", index, errNotUp)
		}
		time.Sleep(upDelays[i])
	}
}

// waitLocal waits until the node answers for its IPv6 addresses on the device:
// the kernel enters them into its routes after it has accepted them
// (addrconf_dad_work), and nobody answers a solicitation until then.
func (e *Endpoint) waitLocal(s *Spec) error {
	if _, has6 := s.families(); !has6 {
		return nil
	}
	if err := waitLocal(linkLocal(e.HostMAC), e.Index); err != nil {
		return err
	}
	for _, gw := range s.gateways() {
		if gw.Is4() {
			continue
		}
		if err := waitLocal(gw, 0); err != nil {
			return err
		}
	}
	return nil
}

// waitLocal waits for a local route to an address; index is for link-local ones.
func waitLocal(addr netip.Addr, index int) error {
	for i := 0; ; i++ {
		routes, err := netlink.RouteGetWithOptions(ipOf(addr), &netlink.RouteGetOptions{OifIndex: index})
		if err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL {
			return nil
		}
		if i == len(upDelays) {
			return fmt.Errorf("wait for address %s: %w", addr, errors.Join(errNotLocal, err))
		}
		time.Sleep(upDelays[i])
	}
}
