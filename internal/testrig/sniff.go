// SPDX-License-Identifier: Apache-2.0

package testrig

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Captured is a packet that a sniffer saw.
type Captured struct {
	// Outgoing says that the namespace itself sent it.
	Outgoing bool
	// EtherType is the frame's, 0x0800 for IPv4.
	EtherType uint16
	// Src and Dst are invalid for what is not IP.
	Src, Dst netip.Addr
	// Protocol and TTL are the IP header's.
	Protocol, TTL byte
	// SrcPort and DstPort are 0 for what is not TCP or UDP, and in fragments.
	SrcPort, DstPort uint16
	// Frame is the whole frame.
	Frame []byte
}

// String implements [fmt.Stringer].
func (c Captured) String() string {
	direction := "in"
	if c.Outgoing {
		direction = "out"
	}
	return fmt.Sprintf("%s %#04x proto %d %s:%d -> %s:%d ttl %d", direction, c.EtherType, c.Protocol,
		c.Src, c.SrcPort, c.Dst, c.DstPort, c.TTL)
}

// Sniffer records what passes a device, from its start until its test ends.
type Sniffer struct {
	mu   sync.Mutex
	seen []Captured
}

// Sniff starts to record what passes a device of the namespace.
func (ns *Namespace) Sniff(tb testing.TB, device string) *Sniffer {
	tb.Helper()
	s := &Sniffer{}
	var fd int
	err := ns.Do(func() (err error) {
		var addr *unix.SockaddrLinklayer
		if fd, addr, err = packetSocket(device); err != nil {
			return err
		}
		addr.Protocol = networkOrder(unix.ETH_P_ALL)
		// The time limit lets the reader notice the test's end.
		limit := unix.NsecToTimeval((20 * time.Millisecond).Nanoseconds())
		return errors.Join(
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20),
			unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit),
			unix.Bind(fd, addr))
	})
	if err != nil {
		tb.Fatalf("sniff %s of %s: %v", device, ns.Name, err)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	tb.Cleanup(func() { close(stop); <-stopped })
	go func() {
		defer close(stopped)
		defer func() { _ = unix.Close(fd) }()
		s.read(fd, stop)
	}()
	return s
}

// Matching returns what was recorded so far and fits.
func (s *Sniffer) Matching(fits func(Captured) bool) []Captured {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Captured
	for _, c := range s.seen {
		if fits(c) {
			out = append(out, c)
		}
	}
	return out
}

// Wait returns the first packet that fits, and false if none passes in time.
func (s *Sniffer) Wait(fits func(Captured) bool, timeout time.Duration) (Captured, bool) {
	deadline := time.Now().Add(timeout)
	for {
		if found := s.Matching(fits); len(found) > 0 {
			return found[0], true
		}
		if time.Now().After(deadline) {
			return Captured{}, false
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (s *Sniffer) read(fd int, stop <-chan struct{}) {
	buf := make([]byte, 1<<18)
	for {
		n, from, err := unix.Recvfrom(fd, buf, 0)
		select {
		case <-stop:
			return
		default:
		}
		if err != nil {
			if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENETDOWN) {
				continue
			}
			return
		}
		captured := parse(append([]byte(nil), buf[:n]...))
		if link, ok := from.(*unix.SockaddrLinklayer); ok {
			captured.Outgoing = link.Pkttype == unix.PACKET_OUTGOING
		}
		s.mu.Lock()
		s.seen = append(s.seen, captured)
		s.mu.Unlock()
	}
}

func parse(frame []byte) Captured {
	c := Captured{Frame: frame}
	if len(frame) < 14 {
		return c
	}
	c.EtherType = binary.BigEndian.Uint16(frame[12:])
	ip := frame[14:]
	var transport []byte
	switch {
	case c.EtherType == unix.ETH_P_IP && len(ip) >= 20:
		c.Src, c.Dst = netip.AddrFrom4([4]byte(ip[12:])), netip.AddrFrom4([4]byte(ip[16:]))
		c.TTL, c.Protocol = ip[8], ip[9]
		fragment := binary.BigEndian.Uint16(ip[6:]) & 0x1fff
		if header := int(ip[0]&0xf) * 4; fragment == 0 && len(ip) >= header {
			transport = ip[header:]
		}
	case c.EtherType == unix.ETH_P_IPV6 && len(ip) >= 40:
		c.Src, c.Dst = netip.AddrFrom16([16]byte(ip[8:])), netip.AddrFrom16([16]byte(ip[24:]))
		c.TTL, c.Protocol = ip[7], ip[6]
		transport = ip[40:]
	}
	if (c.Protocol == unix.IPPROTO_TCP || c.Protocol == unix.IPPROTO_UDP) && len(transport) >= 4 {
		c.SrcPort, c.DstPort = binary.BigEndian.Uint16(transport), binary.BigEndian.Uint16(transport[2:])
	}
	return c
}

func networkOrder(v uint16) uint16 { return v<<8 | v>>8 }
