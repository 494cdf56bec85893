// SPDX-License-Identifier: Apache-2.0

package nlink

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
)

// Links lists all devices. One that a list which changed meanwhile missed is
// there in a later one, or was not there during all of this.
func Links() ([]netlink.Link, error) {
	links, err := netlink.LinkList()
	for try := 0; errors.Is(err, netlink.ErrDumpInterrupted) && try < 5; try++ {
		links, err = netlink.LinkList()
	}
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	return links, nil
}
