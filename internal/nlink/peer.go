// SPDX-License-Identifier: Apache-2.0

package nlink

import (
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// LinkIn reads a device of another network namespace, which the calling
// thread's knows by an id (RTM_GETNSID), without entering it (Linux 4.20). The
// error is ENODEV where the namespace has no such device, EINVAL where there is
// no such namespace any more.
func LinkIn(nsid, index int) (*netlink.LinkAttrs, error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, 0)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	req.AddData(msg)
	req.AddData(nl.NewRtAttr(unix.IFLA_TARGET_NETNSID, nl.Uint32Attr(uint32(nsid))))
	replies, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if err != nil {
		return nil, fmt.Errorf("read device %d of namespace %d: %w", index, nsid, err)
	}
	if len(replies) != 1 {
		return nil, fmt.Errorf("read device %d of namespace %d: %d answers", index, nsid, len(replies))
	}
	link, err := netlink.LinkDeserialize(nil, replies[0])
	if err != nil {
		return nil, fmt.Errorf("decode device %d of namespace %d: %w", index, nsid, err)
	}
	return link.Attrs(), nil
}
