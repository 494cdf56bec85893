// SPDX-License-Identifier: Apache-2.0

package load

import (
	"errors"
	"fmt"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Env is for the environment of a process that calls [End.Run]: the runtime must
// not interrupt a thread that waits in a system call it knows nothing of.
const Env = "GODEBUG=asyncpreemptoff=1"

// Role is what an end does. The two ends are Ping and Echo, Call and Answer, or
// Send and Receive. The first two of these pairs are client and server; the last
// ones are either. Ping, Call and Receive measure; the others go on until they are
// told that it is over.
type Role string

// The roles.
const (
	// Ping sends a byte and waits for one.
	Ping Role = "ping"
	// Echo sends back what it gets until its peer closes.
	Echo Role = "echo"
	// Call connects, sends a byte, waits for one, closes, and connects again.
	Call Role = "call"
	// Answer accepts connections and sends back what it gets over them.
	Answer Role = "answer"
	// Send sends until its peer closes.
	Send Role = "send"
	// Receive takes what it gets.
	Receive Role = "receive"
)

// AnyCPU lets an end run where the kernel likes.
const AnyCPU = -1

// bulk is the size of a write and of a read of bulk data. Below 64 KiB the system
// calls show; far above, the copies leave the CPU's cache. It is iperf3's default too.
const bulk = 128 << 10

// resend is how long a datagram may be under way before it counts as lost.
const resend = 200 * time.Millisecond

// End is one end of a connection.
type End struct {
	Role Role
	// Network is "tcp" or "udp".
	Network string
	// Connections is how many there are at a time.
	Connections int
	// Size is the payload of the datagrams of Send and Receive.
	Size int
	// CPU is where it runs, or [AnyCPU].
	CPU int
	// Warmup is the time before the measurement and Duration the time of it,
	// where the role measures.
	Warmup, Duration time.Duration
}

// Measurement is what an end has seen. For one that does not measure all of it is 0
// but Thread.
type Measurement struct {
	// Seconds that it took.
	Seconds float64
	// Units are transactions, bytes, or datagrams that have arrived.
	Units uint64
	// Busy seconds of all the machine's CPUs meanwhile, whoever used them.
	Busy float64
	// Sent datagrams, where Units are those that have arrived.
	Sent uint64
	// Lost datagrams. Ping sends them again.
	Lost uint64
	// Latency of the transactions.
	Latency Latency
	// Thread is the CPU time of the end's thread from the first packet to the
	// last one, and Total the units of that time: the warm-up is in both.
	Thread float64
	Total  uint64
	// User is the part of Thread that was spent outside the kernel.
	User float64
}

// Latency holds quantiles of the times that transactions took, in seconds.
type Latency struct{ P50, P99, P999 float64 }

// Run does the end's part on a connected socket. The calling goroutine has to be
// locked to its thread, as [InNamespace] does.
func (e End) Run(fd int) (Measurement, error) {
	if e.CPU != AnyCPU {
		var set unix.CPUSet
		set.Set(e.CPU)
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			return Measurement{}, fmt.Errorf("pin to CPU %d: %w", e.CPU, err)
		}
	}
	before, err := threadTime()
	if err != nil {
		return Measurement{}, err
	}
	m, err := e.play(fd)
	if err != nil {
		return m, fmt.Errorf("%s: %w", e.Role, err)
	}
	after, err := threadTime()
	m.Thread = (after - before).Seconds()
	return m, err
}

func (e End) play(fd int) (m Measurement, err error) {
	switch e.Role {
	case Ping:
		m, err = e.ping(fd)
	case Echo:
		err = e.echo(fd)
	case Send:
		err = e.send(fd)
	case Receive:
		m, err = e.receive(fd)
	default:
		err = errors.New("no such role")
	}
	return m, err
}

func (e End) ping(fd int) (Measurement, error) {
	exchange := pingStream
	if e.Network == "udp" {
		if err := setTimeout(fd, unix.SO_RCVTIMEO, resend); err != nil {
			return Measurement{}, err
		}
		exchange = pingDatagram
	}
	p := &pinger{fd: fd}
	m, err := e.measure(func() (uint64, error) { return 1, exchange(p) })
	m.Lost = p.lost
	if err == nil && e.Network == "udp" {
		_, err = write(fd, nil) // which ends the echo, as the end of a stream does
	}
	return m, err
}

// pinger is the state of a ping. Its buffers are here to be made once.
type pinger struct {
	fd      int
	out, in [1]byte
	lost    uint64
}

func pingStream(p *pinger) error {
	if _, err := write(p.fd, p.out[:]); err != nil {
		return err
	}
	n, err := read(p.fd, p.in[:])
	if err == nil && n == 0 {
		err = errClosed
	}
	return err
}

// pingDatagram numbers its datagrams, so that an answer that comes late is not
// taken for the next one's.
func pingDatagram(p *pinger) error {
	p.out[0]++
	for tries := 0; ; tries++ {
		if _, err := write(p.fd, p.out[:]); err != nil {
			return err
		}
		for {
			_, err := read(p.fd, p.in[:])
			if err == nil && p.in == p.out {
				return nil
			}
			if err == nil {
				continue
			}
			if err != unix.EAGAIN || tries*int(resend) > int(patience) {
				return err
			}
			p.lost++
			break
		}
	}
}

func (e End) echo(fd int) error {
	buf := make([]byte, 4096)
	for {
		n, err := read(fd, buf)
		if err == nil && n > 0 {
			_, err = write(fd, buf[:n])
		}
		if n == 0 || err != nil {
			return ignoreClosed(err)
		}
	}
}

func (e End) send(fd int) error {
	buf := make([]byte, bulk)
	for {
		// The look at what the peer has to say costs a thousandth of the write.
		n, err := receive(fd, buf[:1], unix.MSG_DONTWAIT)
		if n == 0 && err == nil {
			return nil
		}
		if err != nil && err != unix.EAGAIN {
			return ignoreClosed(err)
		}
		if _, err := write(fd, buf); err != nil {
			return ignoreClosed(err)
		}
	}
}

func (e End) receive(fd int) (Measurement, error) {
	buf := make([]byte, bulk)
	m, err := e.measure(func() (uint64, error) {
		n, err := read(fd, buf)
		if err == nil && n == 0 {
			err = errClosed
		}
		return uint64(n), err
	})
	if err != nil {
		return m, err
	}
	// An end without a goodbye would be answered by a reset for every packet that
	// is still under way.
	if err := unix.Shutdown(fd, unix.SHUT_WR); err != nil {
		return m, ignoreClosed(err)
	}
	for {
		n, err := read(fd, buf)
		if n == 0 || err != nil {
			return m, ignoreClosed(err)
		}
		m.Total += uint64(n)
	}
}

// measure repeats f for the end's times and adds up what it returns.
func (e End) measure(f func() (uint64, error)) (m Measurement, err error) {
	for until := time.Now().Add(e.Warmup); time.Now().Before(until); {
		units, err := f()
		if err != nil {
			return m, err
		}
		m.Total += units
	}
	watch, err := newStopwatch()
	if err != nil {
		return m, err
	}
	for until := watch.start.Add(e.Duration); time.Now().Before(until); {
		units, err := f()
		if err != nil {
			return m, err
		}
		m.Units += units
	}
	m.Total += m.Units
	m.Seconds, m.Busy, err = watch.stop()
	return m, err
}

var errClosed = errors.New("peer has closed")

// ignoreClosed accepts the ways in which a peer ends a connection.
func ignoreClosed(err error) error {
	if err == unix.EPIPE || err == unix.ECONNRESET || err == unix.ECONNREFUSED {
		return nil
	}
	return err
}

func read(fd int, buf []byte) (int, error) { return receive(fd, buf, 0) }

func receive(fd int, buf []byte, flags int) (int, error) {
	return transfer(syscall.SYS_RECVFROM, fd, buf, flags)
}

func write(fd int, buf []byte) (int, error) {
	return transfer(syscall.SYS_SENDTO, fd, buf, unix.MSG_NOSIGNAL)
}

func transfer(call uintptr, fd int, buf []byte, flags int) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall6(call, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(len(buf)),
			uintptr(flags), 0, 0)
		runtime.KeepAlive(buf)
		if errno == 0 {
			return int(n), nil
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}
