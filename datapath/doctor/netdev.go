// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"errors"
	"fmt"
	"slices"

	"github.com/mdlayher/netlink"
	rtnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/nfnl"
)

// Attributes of include/uapi/linux/netfilter/nf_tables.h that the unix package lacks.
const (
	attrHookDevices = 4 // NFTA_HOOK_DEVS
	attrDeviceName  = 1 // NFTA_DEVICE_NAME
)

// netdevChain is a chain on devices: it runs behind the programs at ingress, and
// at egress it is passed by what they redirect.
type netdevChain struct {
	table, name string
	devices     []string
}

// checkNetdev asks for these chains itself: the library does not read their devices.
func checkNetdev(n *node) []Finding {
	var chains []netdevChain
	err := n.try(func() (err error) {
		chains, err = listNetdevChains()
		return err
	})()
	if err != nil {
		return skipped(err)
	}
	uplinks, err := n.uplinks()
	if err != nil {
		return skipped(err)
	}
	links, err := n.links()
	if err != nil {
		return skipped(err)
	}
	var findings []Finding
	for _, c := range chains {
		on := slices.DeleteFunc(c.devices, func(name string) bool {
			uplink := slices.ContainsFunc(uplinks, func(u uplink) bool { return u.name() == name })
			veth := slices.ContainsFunc(links, func(l rtnl.Link) bool { return ours(l) && l.Attrs().Name == name })
			return !uplink && !veth
		})
		if len(on) > 0 {
			findings = append(findings, Finding{
				Level: Warning, Subject: fmt.Sprintf("netdev %s %s", c.table, c.name), Found: "is on " + list(on),
				Means:  "its rules do not see the packets that eBPF carries",
				Advice: `move rules that must see every packet to the hook forward and set "slowPathMark" for their flows, or set "forwarding": "kernel"`,
			})
		}
	}
	return orOK(findings, "none on uplinks and host veths")
}

func listNetdevChains() (chains []netdevChain, err error) {
	conn, err := nfnl.Open()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	request := netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETCHAIN, Flags: netlink.Request | netlink.Dump},
		Data:   []byte{unix.NFPROTO_NETDEV, unix.NFNETLINK_V0, 0, 0},
	}
	err = conn.Dump(request, func(m netlink.Message) error {
		c, err := decodeNetdevChain(m)
		chains = append(chains, c)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list netdev chains: %w", err)
	}
	return chains, nil
}

func decodeNetdevChain(m netlink.Message) (c netdevChain, err error) {
	err = nfnl.EachAttribute(m, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case unix.NFTA_CHAIN_TABLE:
			c.table = ad.String()
		case unix.NFTA_CHAIN_NAME:
			c.name = ad.String()
		case unix.NFTA_CHAIN_HOOK:
			ad.Nested(func(h *netlink.AttributeDecoder) error {
				for h.Next() {
					switch h.Type() {
					case unix.NFTA_HOOK_DEV:
						c.devices = append(c.devices, h.String())
					case attrHookDevices:
						h.Nested(func(d *netlink.AttributeDecoder) error {
							for d.Next() {
								if d.Type() == attrDeviceName {
									c.devices = append(c.devices, d.String())
								}
							}
							return nil
						})
					}
				}
				return nil
			})
		}
	})
	// The kernel names a single device twice.
	slices.Sort(c.devices)
	c.devices = slices.Compact(c.devices)
	return c, err
}
