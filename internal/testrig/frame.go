// SPDX-License-Identifier: Apache-2.0

package testrig

import (
	"encoding/binary"
	"fmt"
	"net"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// packetSocket opens a packet socket in the calling thread's network namespace,
// and returns the address of a device for it.
func packetSocket(device string) (fd int, addr *unix.SockaddrLinklayer, err error) {
	link, err := net.InterfaceByName(device)
	if err != nil {
		return -1, nil, err
	}
	fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, nil, fmt.Errorf("open packet socket: %w", err)
	}
	return fd, &unix.SockaddrLinklayer{Ifindex: link.Index}, nil
}

// SendFrame sends an Ethernet frame as it is out of a device of the calling
// thread's network namespace.
func SendFrame(device string, frame []byte) error {
	fd, addr, err := packetSocket(device)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	return unix.Sendto(fd, frame, 0, addr)
}

// SendFrame sends an Ethernet frame as it is out of a device of the namespace.
func (ns *Namespace) SendFrame(tb testing.TB, device string, frame []byte) {
	tb.Helper()
	if err := ns.Do(func() error { return SendFrame(device, frame) }); err != nil {
		tb.Fatalf("send frame from %s of %s: %v", device, ns.Name, err)
	}
}

// SendNonLinear is [SendFrame] for a frame of which only the Ethernet header is in
// the packet's linear part: a transmit ring makes such packets (packet_mmap(7)).
func SendNonLinear(device string, frame []byte) error {
	fd, addr, err := packetSocket(device)
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
	addr.Protocol = binary.NativeEndian.Uint16(frame[12:])
	return unix.Sendto(fd, nil, 0, addr)
}
