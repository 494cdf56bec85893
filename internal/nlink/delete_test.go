// SPDX-License-Identifier: Apache-2.0

package nlink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/orphan"
	"github.com/zipline-cni/zipline/internal/testutil"
)

// TestDeletedNamesAreFreeAtOnce deletes pairs and makes them again, with routes.
func TestDeletedNamesAreFreeAtOnce(t *testing.T) {
	inNetns(t, func() {
		ahead := 0
		for range 20 {
			run(t, "ip link add here type veth peer name there")
			run(t, "ip link set here up")
			run(t, "ip link set there up")
			run(t, "ip route add 192.0.2.1 dev here")
			here, there := index(t, "here"), index(t, "there")
			// The last thing of the other end, and to look for it takes no lock.
			const last = "/proc/sys/net/ipv4/conf/there"
			if _, err := os.Stat(last); err != nil {
				t.Errorf("settings of the other end: %v", err)
			}
			if t.Failed() {
				return
			}
			if err := DeleteLink(here); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(last); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("settings of the other end: %v", err)
			}
			ahead += len(testutil.Children(t, "D")) // in rcu_barrier; a zombie has answered
			for _, gone := range []int{here, there} {
				if _, err := netlink.LinkByIndex(gone); !errors.As(err, &netlink.LinkNotFoundError{}) {
					t.Errorf("device %d: %v", gone, err)
				}
			}
			if routes := collect(t, RouteFilter{Family: unix.AF_INET}, 10); len(routes) > 0 {
				t.Errorf("routes are left: %v", routes)
			}
		}
		if ahead == 0 {
			t.Error("each deletion has waited for the kernel to free the memory")
		}
	})
	testutil.Eventually(t, "every child has ended", func() bool { return len(testutil.Children(t)) == 0 })
}

func TestDeleteLinkSaysWhyNot(t *testing.T) {
	inNetns(t, func() {
		if err := DeleteLink(4711); !errors.Is(err, unix.ENODEV) {
			t.Errorf("no such device: %v", err)
		}
		if err := DeleteLink(index(t, "lo")); !errors.Is(err, unix.EOPNOTSUPP) {
			t.Errorf("lo: %v", err)
		}
		defer func() { write = orphan.Write }()
		write = func(int, []byte, func()) error { return unix.EAGAIN }
		if err := DeleteLink(4711); !errors.Is(err, unix.ENODEV) {
			t.Errorf("no such device, and no child: %v", err)
		}
	})
}

// TestWithoutAChildTheDeviceGoesToo has a child that there is not, one that ends
// before it wrote, one that ends after, and one whose answer is lost.
func TestWithoutAChildTheDeviceGoesToo(t *testing.T) {
	defer func() { write = orphan.Write }()
	for name, broken := range map[string]func(int, []byte, func()) error{
		"none":   func(int, []byte, func()) error { return unix.EAGAIN },
		"killed": func(_ int, _ []byte, ended func()) error { ended(); return nil },
		"slow": func(fd int, message []byte, ended func()) error {
			ended()
			return orphan.Write(fd, message, ended)
		},
		"unheard": func(fd int, message []byte, ended func()) error {
			index := int(int32(binary.NativeEndian.Uint32(message[unix.NLMSG_HDRLEN+4:])))
			if err := netlink.LinkDel(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}); err != nil {
				return err
			}
			_, err := unix.Read(fd, make([]byte, 4096))
			ended()
			return err
		},
	} {
		inNetns(t, func() {
			write = broken
			run(t, "ip link add here type veth peer name there")
			here := index(t, "here")
			if err := DeleteLink(here); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if _, err := netlink.LinkByIndex(here); !errors.As(err, &netlink.LinkNotFoundError{}) {
				t.Errorf("%s: device: %v", name, err)
			}
		})
	}
}

// TestOnlyTheDevicesOwnEndIsHeard has other news of devices, and the port that
// leaves a bridge without being deleted.
func TestOnlyTheDevicesOwnEndIsHeard(t *testing.T) {
	inNetns(t, func() {
		run(t, "ip link add bridge0 type bridge")
		run(t, "ip link add other type veth peer name another")
		run(t, "ip link add here type veth peer name there")
		run(t, "ip link set here master bridge0")
		here := index(t, "here")
		fd, err := deletionSocket(here)
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = unix.Close(fd) }() // nothing was written
		run(t, "ip link del other")
		run(t, "ip link set here nomaster")
		run(t, "ip link set here up")
		run(t, "ip link del here")
		var heard []string
		message := make([]byte, 4096)
		for {
			n, err := unix.Read(fd, message)
			if err != nil {
				break
			}
			kind, of := binary.NativeEndian.Uint16(message[4:n]), binary.NativeEndian.Uint32(message[20:n])
			heard = append(heard, fmt.Sprint(kind, " ", int(of) == here))
		}
		if want := []string{fmt.Sprint(unix.RTM_DELLINK, " ", true)}; !slices.Equal(heard, want) {
			t.Errorf("heard %v, want %v", heard, want)
		}
	})
}
