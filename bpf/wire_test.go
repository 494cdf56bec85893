// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"errors"
	"net"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/testutil"
)

// A test run makes linear packets only. This one comes off a wire.
func TestHeadersThatAreNotLinearAreNotRewritten(t *testing.T) {
	w := newTrackingWorld(t)
	err := w.do(func() error {
		l, err := link.AttachTCX(link.TCXOptions{Program: w.objs.FromUplink, Interface: w.uplink.index, Attach: ebpf.AttachTCXIngress})
		if err == nil {
			t.Cleanup(func() { _ = l.Close() })
		}
		return err
	})
	if errors.Is(err, ebpf.ErrNotSupported) {
		testutil.RequireKernel(t, "tcx (6.6)", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	eachProtocol(t, func(t *testing.T, protocol byte, v6 bool) {
		e := w.flows()["from outside to a container"].entry(protocol, v6)
		w.add(t, e)
		const row = uint32(HookUplink)*Reasons + uint32(ZiplineReasonREASON_NEXT_NONLINEAR)
		before := w.counters(t)[row].Packets
		for deadline := time.Now().Add(10 * time.Second); w.counters(t)[row].Packets == before; {
			w.admit(t, e, original|replying)
			if err := w.do(func() error { return sendFragmented("up0p", e.packet(w, original, false).bytes()) }); err != nil {
				t.Fatal(err)
			}
			if time.Now().After(deadline) {
				t.Fatalf("a packet that is not linear is not counted as %q", ZiplineReasonREASON_NEXT_NONLINEAR)
			}
		}
	})
}

// sendFragmented sends a frame whose linear part is the Ethernet header: a
// transmit ring makes such packets (packet_mmap(7)).
func sendFragmented(device string, frame []byte) error {
	dev, err := net.InterfaceByName(device)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V2); err != nil {
		return err
	}
	const size = 4096
	ring := &unix.TpacketReq{Block_size: size, Block_nr: 1, Frame_size: size, Frame_nr: 1}
	if err := unix.SetsockoptTpacketReq(fd, unix.SOL_PACKET, unix.PACKET_TX_RING, ring); err != nil {
		return err
	}
	memory, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Munmap(memory) }()
	header := (*unix.Tpacket2Hdr)(unsafe.Pointer(&memory[0]))
	// The data begins where the address of a received packet would.
	copy(memory[unix.TPACKET_ALIGNMENT*((unix.SizeofTpacket2Hdr+unix.TPACKET_ALIGNMENT-1)/unix.TPACKET_ALIGNMENT):], frame)
	header.Len = uint32(len(frame))
	header.Status = unix.TP_STATUS_SEND_REQUEST
	protocol := binary.NativeEndian.Uint16(frame[12:])
	return unix.Sendto(fd, nil, 0, &unix.SockaddrLinklayer{Ifindex: dev.Index, Protocol: protocol})
}
