// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"bytes"
	"errors"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/testrig"
	"github.com/zipline-cni/zipline/internal/testutil"
)

// TestDeviceThatGoes records frames with a VLAN tag, which the kernel hands over
// beside the frame, from a device that is removed: the file is whole, and no packet
// is longer than the file says.
func TestDeviceThatGoes(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.RequireProgram(t, "tcpdump")
	node := testrig.New(t, testrig.Options{}).Node
	node.MustRun(t, "sh", "-ec", "ip link add zca type veth peer name zcb; ip link set zca up; ip link set zcb up")
	const frames, snaplen = 20, 60
	options := Options{Name: "zcb", Snaplen: snaplen, Filter: "ether src 02:00:00:00:00:01"}
	sender, receiver := -1, -1
	err := node.Do(func() (err error) {
		if options.Namespace, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return err
		}
		device, err := net.InterfaceByName("zcb")
		if err != nil {
			return err
		}
		options.Index = device.Index
		if receiver, err = packetSocket(device.Index, unix.ETH_P_ALL); err != nil {
			return err
		}
		if device, err = net.InterfaceByName("zca"); err != nil {
			return err
		}
		sender, err = packetSocket(device.Index, 0)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = options.Namespace.Close(); _ = unix.Close(sender); _ = unix.Close(receiver) })
	ready, ended := make(chan bool), make(chan error, 1)
	options.Ready = func() { close(ready) }
	var file bytes.Buffer
	var sum Summary
	go func() {
		var err error
		sum, err = Run(t.Context(), &file, options)
		ended <- err
	}()
	<-ready
	frame := append([]byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x81, 0, 0, 7, 8, 0}, make([]byte, 82)...)
	for range frames {
		if _, err := unix.Write(sender, frame); err != nil {
			t.Fatal(err)
		}
	}
	awaitFrames(t, receiver, frames) // what is still on its way goes with the device
	node.MustRun(t, "ip", "link", "del", "zca")
	select {
	case err := <-ended:
		if !errors.Is(err, ErrDown) {
			t.Errorf("error %v, want %v", err, ErrDown)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the recording goes on without the device")
	}
	cmd := exec.Command("tcpdump", "-n", "-e", "-r", "-")
	cmd.Stdin = bytes.NewReader(file.Bytes())
	text, err := cmd.Output()
	if err != nil {
		t.Fatalf("tcpdump: %v", err)
	}
	if n := strings.Count(string(text), "length 100: vlan 7,"); n != frames || sum.Packets != frames {
		t.Errorf("tcpdump reads %d packets of %d (%d told):\n%s", n, frames, sum.Packets, text)
	}
}

// packetSocket opens a socket that sees what comes in by a device and what goes out.
func packetSocket(index, protocol int) (int, error) {
	socket, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	number := uint16(protocol)<<8 | uint16(protocol)>>8
	return socket, unix.Bind(socket, &unix.SockaddrLinklayer{Ifindex: index, Protocol: number})
}

// awaitFrames waits until a socket has seen so many of the test's frames.
func awaitFrames(t *testing.T, socket, frames int) {
	t.Helper()
	limit := unix.Timeval{Sec: 20}
	if err := unix.SetsockoptTimeval(socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 2048)
	for frames > 0 {
		n, _, err := unix.Recvfrom(socket, data, 0)
		if err != nil {
			t.Fatalf("%d frames have not come: %v", frames, err)
		}
		if n >= 12 && bytes.Equal(data[6:12], []byte{2, 0, 0, 0, 0, 1}) {
			frames--
		}
	}
}
