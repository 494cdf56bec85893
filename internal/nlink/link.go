// SPDX-License-Identifier: Apache-2.0

package nlink

import (
	"encoding/binary"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// IPv4 per-device settings, the IPV4_DEVCONF_* indexes of
// include/uapi/linux/ip.h. They are the sysctls under net.ipv4.conf.<device>.
const (
	ConfForwarding = 1  // forwarding
	ConfProxyARP   = 3  // proxy_arp
	ConfARPNotify  = 22 // arp_notify
)

// Nested attributes of include/uapi/linux/if_link.h that the unix package lacks.
const (
	iflaInetConf     = 1
	iflaInet6AddrGen = 8
	addrGenModeNone  = 1
)

// LinkChange lists what SetLink changes. Zero fields are left alone.
type LinkChange struct {
	// Up brings the device up.
	Up bool
	// Alias is the interface alias, at most 255 bytes (IFALIASZ).
	Alias string
	// Conf4 holds IPv4 per-device settings by their Conf… index. Setting
	// them here costs one message; through /proc/sys each costs three
	// system calls.
	Conf4 map[int]uint32
	// NoLinkLocal6 keeps the kernel from generating an IPv6 link-local
	// address (addr_gen_mode none).
	NoLinkLocal6 bool
	// OffloadSize4 is the largest GSO and GRO packet of IPv4 in bytes.
	OffloadSize4 uint32
}

// SetLink applies a change to the device with the given index in one
// message. A kernel that does not know OffloadSize4 (before 6.3) ignores it or
// refuses the whole message with EINVAL or ERANGE (rtnetlink(7)).
func SetLink(index int, c LinkChange) error {
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	if c.Up {
		msg.Flags, msg.Change = unix.IFF_UP, unix.IFF_UP
	}
	req.AddData(msg)
	if c.Alias != "" {
		req.AddData(nl.NewRtAttr(unix.IFLA_IFALIAS, []byte(c.Alias)))
	}
	if c.OffloadSize4 != 0 {
		for _, attr := range []int{unix.IFLA_GSO_IPV4_MAX_SIZE, unix.IFLA_GRO_IPV4_MAX_SIZE} {
			req.AddData(nl.NewRtAttr(attr, nl.Uint32Attr(c.OffloadSize4)))
		}
	}
	if len(c.Conf4) > 0 || c.NoLinkLocal6 {
		req.AddData(afSpec(c))
	}
	if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil {
		return fmt.Errorf("set device %d: %w", index, err)
	}
	return nil
}

func afSpec(c LinkChange) *nl.RtAttr {
	spec := nl.NewRtAttr(unix.IFLA_AF_SPEC, nil)
	if len(c.Conf4) > 0 {
		conf := spec.AddRtAttr(unix.AF_INET, nil).AddRtAttr(iflaInetConf, nil)
		for index, value := range c.Conf4 {
			conf.AddRtAttr(index, binary.NativeEndian.AppendUint32(nil, value))
		}
	}
	if c.NoLinkLocal6 {
		spec.AddRtAttr(unix.AF_INET6, nil).AddRtAttr(iflaInet6AddrGen, []byte{addrGenModeNone})
	}
	return spec
}
