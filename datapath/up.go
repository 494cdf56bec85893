// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
)

// upDelays are the pauses between looks at a device that is not up yet; the
// last ones are those of the bridge plugin.
var upDelays = []time.Duration{
	time.Millisecond, 5 * time.Millisecond, 20 * time.Millisecond,
	50 * time.Millisecond, 500 * time.Millisecond, time.Second, time.Second,
}

var errNotUp = errors.New("device does not come up")

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
