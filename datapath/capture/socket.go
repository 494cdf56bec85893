// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// packet is what a socket received.
type packet struct {
	data     []byte
	length   int // before it was cut
	at       time.Time
	outgoing bool // the device sent it
}

// socket is a packet socket of a device.
type socket struct {
	fd          int
	buffer, oob []byte
}

// buffered is how many bytes may wait for the reader.
const buffered = 16 << 20

// wake is how often a reader that waits looks whether it is to go on.
const wake = 100 * time.Millisecond

// open opens a socket in a namespace. It passes what the filter passes from the
// first packet on: only then is it bound.
func open(namespace *os.File, index int, filter []bpf.RawInstruction, snaplen uint32) (*socket, error) {
	s := &socket{buffer: make([]byte, snaplen), oob: make([]byte, 256)}
	err := inNamespace(namespace, func() (err error) {
		s.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	if err := s.prepare(index, filter); err != nil {
		_ = unix.Close(s.fd) // the error is told
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	return s, nil
}

func (s *socket) prepare(index int, filter []bpf.RawInstruction) error {
	program := make([]unix.SockFilter, len(filter))
	for i, f := range filter {
		program[i] = unix.SockFilter{Code: f.Op, Jt: f.Jt, Jf: f.Jf, K: f.K}
	}
	limit := unix.NsecToTimeval(wake.Nanoseconds())
	if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffered); err != nil {
		_ = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, buffered) // as far as it may
	}
	err := errors.Join(
		unix.SetsockoptSockFprog(s.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}),
		unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		unix.SetsockoptInt(s.fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1),
		unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit))
	if err != nil {
		return err
	}
	all := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))
	return unix.Bind(s.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: index})
}

// receive returns the next packet, valid until the next call, or nil where there
// is none: at once, or, if it may wait, after a moment.
func (s *socket) receive(wait bool) (*packet, error) {
	flags := unix.MSG_DONTWAIT
	if wait {
		flags = 0
	}
	n, oobn, _, from, err := unix.Recvmsg(s.fd, s.buffer, s.oob, flags)
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return nil, nil
	case errors.Is(err, unix.ENETDOWN):
		return nil, ErrDown
	case err != nil:
		return nil, fmt.Errorf("receive packet: %w", err)
	}
	p := &packet{data: s.buffer[:n], length: n, at: time.Now()}
	if link, ok := from.(*unix.SockaddrLinklayer); ok {
		p.outgoing = link.Pkttype == unix.PACKET_OUTGOING
	}
	messages, err := unix.ParseSocketControlMessage(s.oob[:oobn])
	if err != nil {
		return nil, fmt.Errorf("parse control message: %w", err)
	}
	for _, m := range messages {
		p.note(&m)
	}
	p.data = p.data[:min(len(p.data), len(s.buffer))] // a tag makes it longer
	return p, nil
}

// note takes what the kernel says beside the packet: when it was seen, how long it
// is, and the VLAN tag, which it has taken out of the frame.
func (p *packet) note(m *unix.SocketControlMessage) {
	switch {
	case m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SO_TIMESTAMPNS && len(m.Data) >= int(unsafe.Sizeof(unix.Timespec{})):
		ts := (*unix.Timespec)(unsafe.Pointer(&m.Data[0]))
		p.at = time.Unix(ts.Unix())
	case m.Header.Level == unix.SOL_PACKET && m.Header.Type == unix.PACKET_AUXDATA && len(m.Data) >= int(unsafe.Sizeof(unix.TpacketAuxdata{})):
		aux := (*unix.TpacketAuxdata)(unsafe.Pointer(&m.Data[0]))
		p.length = max(int(aux.Len), len(p.data))
		if aux.Status&unix.TP_STATUS_VLAN_VALID != 0 && len(p.data) >= 12 {
			tpid := uint16(unix.ETH_P_8021Q)
			if aux.Status&unix.TP_STATUS_VLAN_TPID_VALID != 0 {
				tpid = aux.Vlan_tpid
			}
			tag := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, tpid), aux.Vlan_tci)
			p.data = append(append(append([]byte{}, p.data[:12]...), tag...), p.data[12:]...)
			p.length += len(tag)
		}
	}
}

// statistics returns how many packets the filter passed, and how many of these
// the reader was too slow for. The kernel counts anew from then on.
func (s *socket) statistics() (passed, dropped uint64, err error) {
	stats, err := unix.GetsockoptTpacketStats(s.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return 0, 0, fmt.Errorf("read statistics: %w", err)
	}
	return uint64(stats.Packets), uint64(stats.Drops), nil
}

func (s *socket) close() error { return unix.Close(s.fd) }

// inNamespace calls f on a thread that ends in the namespace.
func inNamespace(namespace *os.File, f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
		if err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET); err != nil {
			result <- fmt.Errorf("enter namespace: %w", err)
			return
		}
		result <- f()
	}()
	return <-result
}
