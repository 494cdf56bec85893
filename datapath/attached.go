// SPDX-License-Identifier: Apache-2.0

package datapath

import "github.com/vishvananda/netlink"

// AttachedBy returns the endpoint whose host veth a device is, and false for a
// device that is none of ours.
func AttachedBy(link netlink.Link) (Attached, bool) {
	if !isOurs(link.Attrs()) {
		return Attached{}, false
	}
	return attachedOf(link.Attrs()), true
}
