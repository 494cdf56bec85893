// SPDX-License-Identifier: Apache-2.0

package load

import (
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Env is for the environment of a process that calls [End.Connect] or [End.Serve]: the runtime must
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

// Connect does the end's part as a client of the server at an address. The calling
// goroutine has to be locked to its thread, as [InNamespace] does.
func (e End) Connect(to netip.AddrPort) (Measurement, error) {
	if err := e.check(); err != nil {
		return Measurement{}, err
	}
	if e.Role == Call {
		return e.timed(func() (Measurement, error) { return e.call(to) })
	}
	fds, err := connect(e.Network, to, e.Connections)
	if err != nil {
		return Measurement{}, err
	}
	return e.play(fds)
}

// Serve does the end's part as the server of a listening socket, which it closes.
// It returns the address that its peers have as they are seen here. The calling
// goroutine has to be locked to its thread.
func (e End) Serve(listener int) (m Measurement, peer netip.Addr, err error) {
	defer func() { _ = unix.Close(listener) }()
	if err := e.check(); err != nil {
		return m, peer, err
	}
	var found peers
	switch {
	case e.Role == Answer:
		m, err = e.timed(func() (m Measurement, err error) {
			found, err = e.answer(listener)
			return m, err
		})
	case e.Network == "udp":
		m, err = e.timed(func() (m Measurement, err error) {
			if e.Role == Echo {
				found, err = e.echoDatagrams(listener)
			} else {
				m, found, err = e.gather(listener)
			}
			return m, err
		})
	default:
		var fds []int
		if fds, found, err = acceptAll(listener, e.Connections); err == nil {
			m, err = e.play(fds)
		}
	}
	return m, found.addr, err
}

// check refuses what can't be done.
func (e End) check() error {
	if e.Connections < 1 {
		return fmt.Errorf("%s: %d connections", e.Role, e.Connections)
	}
	switch e.Role {
	case Ping, Echo, Send, Receive, Call, Answer:
		return nil
	}
	return fmt.Errorf("%s: no such role", e.Role)
}

// play does what the end does over connected sockets, and closes them.
func (e End) play(fds []int) (m Measurement, err error) {
	events, limit := uint32(unix.EPOLLIN), patience
	if e.Role == Send {
		events |= unix.EPOLLOUT
	}
	if e.Role == Ping && e.Network == "udp" {
		limit = resend
	}
	g, err := newGroup(fds, events, limit)
	defer g.close()
	if err != nil {
		return m, err
	}
	return e.timed(func() (m Measurement, err error) {
		switch e.Role {
		case Ping:
			m, err = e.ping(g)
		case Echo:
			err = e.echo(g)
		case Receive:
			m, err = e.receive(g)
		case Send:
			if e.Network == "udp" {
				err = e.flood(g)
			} else {
				err = e.send(g)
			}
		}
		return m, err
	})
}

// timed pins the thread and adds the CPU time that it takes for f.
func (e End) timed(f func() (Measurement, error)) (Measurement, error) {
	if err := Pin(e.CPU); err != nil {
		return Measurement{}, err
	}
	before, err := readThread()
	if err != nil {
		return Measurement{}, err
	}
	m, err := f()
	if err != nil {
		return m, fmt.Errorf("%s: %w", e.Role, err)
	}
	after, err := readThread()
	m.Thread, m.User = (after.all - before.all).Seconds(), (after.user - before.user).Seconds()
	return m, err
}

// Pin has the calling thread run on a CPU, or leaves it alone for [AnyCPU].
func Pin(cpu int) error {
	if cpu == AnyCPU {
		return nil
	}
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("pin to CPU %d: %w", cpu, err)
	}
	return nil
}
