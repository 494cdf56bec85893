// SPDX-License-Identifier: Apache-2.0

package nlink

import (
	"errors"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestLinkInReadsADeviceOfAnotherNamespace(t *testing.T) {
	inNetns(t, func() {
		other, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Errorf("open namespace: %v", err)
			return
		}
		defer unix.Close(other)
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Errorf("make namespace: %v", err)
			return
		}
		run(t, "ip link add here type veth peer name there mtu 1400 address 02:00:00:00:00:07")
		there := index(t, "there")
		link := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: "there", Index: there}}
		if err := netlink.LinkSetNsFd(link, other); err != nil {
			t.Errorf("move device: %v", err)
			return
		}
		// The namespace gets its id when the kernel first shows a device with
		// its other end there.
		host, err := netlink.LinkByName("here")
		if err != nil {
			t.Errorf("read here: %v", err)
			return
		}
		nsid, peer := host.Attrs().NetNsID, host.Attrs().ParentIndex
		attrs, err := LinkIn(nsid, peer)
		if err != nil || attrs.Name != "there" || attrs.MTU != 1400 || attrs.HardwareAddr.String() != "02:00:00:00:00:07" || attrs.Statistics == nil {
			t.Errorf("device %d of namespace %d: %+v, %v", peer, nsid, attrs, err)
		}
		if _, err := LinkIn(nsid, 4711); !errors.Is(err, unix.ENODEV) {
			t.Errorf("a device that is not there: %v", err)
		}
		if _, err := LinkIn(4711, peer); !errors.Is(err, unix.EINVAL) {
			t.Errorf("a namespace that is not there: %v", err)
		}
	})
}
