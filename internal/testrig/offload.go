// SPDX-License-Identifier: Apache-2.0

package testrig

import (
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Offload is something that a device may do for the stack.
type Offload uint32

// What [Namespace.SetOffload] can change.
const (
	// ChecksumOffload leaves checksums to the peer, as veth does. Without it packets
	// carry whole checksums, and none is larger than the MTU.
	ChecksumOffload Offload = unix.ETHTOOL_STXCSUM
	// GRO joins what arrives, as network cards do and veth does not.
	GRO Offload = unix.ETHTOOL_SGRO
)

// SetOffload switches an offload of a device of the namespace on or off.
func (ns *Namespace) SetOffload(tb testing.TB, device string, offload Offload, on bool) {
	tb.Helper()
	value := struct{ command, data uint32 }{uint32(offload), 0}
	if on {
		value.data = 1
	}
	request := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(&value)}
	copy(request.name[:], device)
	err := ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
		runtime.KeepAlive(&value)
		if errno != 0 {
			return errno
		}
		return nil
	})
	if err != nil {
		tb.Fatalf("set offload %#x of %s in %s: %v", uint32(offload), device, ns.Name, err)
	}
}
