// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/bpf"
)

// Tuple is who talks to whom.
type Tuple struct {
	// Src and Dst have port 0 where the packet has none, and are invalid of
	// what is neither IP nor ARP.
	Src, Dst netip.AddrPort
	// EtherType is the frame's, Protocol the IP header's.
	EtherType uint16
	Protocol  uint8
	// TCPFlags are 0 of what is not TCP.
	TCPFlags uint8
}

// Event is one verdict.
type Event struct {
	Time time.Time
	Hook bpf.Hook
	// Reason implies the verdict.
	Reason bpf.Reason
	// Came is the packet as it came to the program, Went as it left it.
	Came, Went Tuple
	// Length in bytes with the Ethernet header, before segmentation.
	Length int
	// Device is the index of the device where it was seen. Endpoint is the host
	// veth of the endpoint that the event is about, Peer that of the other end;
	// each is 0 where there is none.
	Device, Endpoint, Peer int
	// Mark is of conntrack's entry where Known says that it was at hand: what
	// came through the stack.
	Mark  uint32
	Known bool
}

// Translated says whether the program changed an address or a port.
func (e *Event) Translated() bool { return e.Came.Src != e.Went.Src || e.Came.Dst != e.Went.Dst }

// Inbound says whether the packet is on its way to the event's endpoint; else it
// comes from there, or is nobody's and leaves the node.
func (e *Event) Inbound() bool {
	return e.Hook == bpf.HookUplink || e.Hook == bpf.HookDevice && e.Device == e.Endpoint
}

func decode(sample []byte) (*Event, error) {
	var raw bpf.TraceEvent
	if err := binary.Read(bytes.NewReader(sample), binary.NativeEndian, &raw); err != nil {
		return nil, fmt.Errorf("decode event: %w", err)
	}
	return &Event{
		Time: wallTime(raw.Time), Hook: bpf.Hook(raw.Hook), Reason: bpf.Reason(raw.Reason),
		Came: tupleOf(&raw.Came), Went: tupleOf(&raw.Went),
		Length: int(raw.Length), Device: int(raw.Device), Endpoint: int(raw.Endpoint), Peer: int(raw.Peer),
		Mark: raw.Mark, Known: raw.Known != 0,
	}, nil
}

func tupleOf(raw *bpf.TraceTuple) Tuple {
	t := Tuple{EtherType: raw.Ethertype, Protocol: raw.Protocol, TCPFlags: raw.TcpFlags}
	switch t.EtherType {
	case unix.ETH_P_IP, unix.ETH_P_IPV6, unix.ETH_P_ARP:
		t.Src = addrPort(raw.Saddr.W, raw.Sport)
		t.Dst = addrPort(raw.Daddr.W, raw.Dport)
	}
	return t
}

func addrPort(words [4]uint32, port uint16) netip.AddrPort {
	var b [16]byte
	for i, w := range words {
		binary.NativeEndian.PutUint32(b[4*i:], w)
	}
	var p [2]byte
	binary.NativeEndian.PutUint16(p[:], port)
	return netip.AddrPortFrom(netip.AddrFrom16(b).Unmap(), binary.BigEndian.Uint16(p[:]))
}

// wallTime returns the time of day of a reading of the monotonic clock.
func wallTime(ns uint64) time.Time {
	var monotonic unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &monotonic); err != nil {
		return time.Now().UTC()
	}
	return time.Now().Add(time.Duration(int64(ns) - monotonic.Nano())).UTC()
}
