// SPDX-License-Identifier: Apache-2.0

package load

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// resend is how long a datagram may be under way before it counts as lost.
const resend = 200 * time.Millisecond

// pinger sends a byte over every connection and, when one comes back, the next.
type pinger struct {
	*meter
	*group
	datagrams bool
	pings     []ping
	in        [1]byte
	// check is when to look for lost datagrams next.
	check time.Duration
}

// ping is the transaction of a connection.
type ping struct {
	// number is sent and has to come back, so that an answer that comes late is
	// not taken for the next one's.
	number [1]byte
	// since is when it was sent first, and again when last.
	since, again time.Duration
}

func newPinger(g *group, datagrams bool) *pinger {
	return &pinger{meter: newMeter(), group: g, datagrams: datagrams, pings: make([]ping, len(g.fds))}
}

func (e End) ping(g *group) (Measurement, error) {
	p := newPinger(g, e.Network == "udp")
	for i := range p.pings {
		if err := p.next(i); err != nil {
			return Measurement{}, err
		}
	}
	found, err := p.measure(e, p.step)
	if err != nil {
		return found, err
	}
	// One answer per connection is still under way.
	for _, fd := range g.fds {
		_, _ = read(fd, p.in[:])
	}
	if p.datagrams {
		_, err = write(g.fds[0], nil, 0) // which ends the echo, as the end of a stream does
	}
	return found, err
}

// next begins a transaction, at the time of the last reading of the clock.
func (p *pinger) next(i int) error {
	p.pings[i].number[0]++
	p.pings[i].since, p.pings[i].again = p.now, p.now
	return p.send(i)
}

func (p *pinger) send(i int) error {
	_, err := write(p.fds[i], p.pings[i].number[:], 0)
	return err
}

// step takes the answers that have come and returns how many.
func (p *pinger) step() (done uint64, err error) {
	events, err := p.ready()
	if err != nil {
		return 0, err
	}
	for _, event := range events {
		i := int(event.Fd)
		switch n, err := receive(p.fds[i], p.in[:], p.flags); {
		case err == unix.EAGAIN:
			continue
		case err != nil:
			return done, err
		case n == 0:
			return done, errClosed
		case p.in != p.pings[i].number:
			continue
		}
		p.read()
		p.took(p.pings[i].since)
		done++
		if err := p.next(i); err != nil {
			return done, err
		}
	}
	if done == 0 {
		p.read()
	}
	if done == 0 || p.now >= p.check {
		p.check = p.now + resend
		err = p.missing()
	}
	return done, err
}

// missing sends again what has been lost.
func (p *pinger) missing() error {
	for i := range p.pings {
		w := &p.pings[i]
		if p.now-w.since >= patience {
			return errSilent
		}
		if !p.datagrams || p.now-w.again < resend {
			continue
		}
		p.lost++
		w.again = p.now
		if err := p.send(i); err != nil {
			return err
		}
	}
	return nil
}

// echo sends back what comes until the peer has closed every connection.
func (e End) echo(g *group) error {
	buf := make([]byte, 4096)
	return g.serve(func(fd int, _ uint32) (over bool, err error) {
		n, err := receive(fd, buf, g.flags)
		if err == nil && n > 0 {
			_, err = write(fd, buf[:n], 0)
		}
		return n == 0, err
	})
}

// echoDatagrams has one socket for all peers, as a name server has. An empty
// datagram ends it.
func (e End) echoDatagrams(fd int) (found peers, err error) {
	buf := make([]byte, 4096)
	from := &name{}
	for {
		n, err := receiveFrom(fd, buf, 0, from)
		if err == unix.EAGAIN {
			err = errSilent
		}
		if err == nil {
			err = found.see(from)
		}
		if err != nil || n == 0 {
			return found, err
		}
		if _, err := sendTo(fd, buf[:n], 0, from); err != nil {
			return found, err
		}
	}
}

var (
	errClosed = errors.New("peer has closed")
	errSilent = errors.New("nothing has come for too long")
)

// closed says whether an error is a way in which a peer ends a connection.
func closed(err error) bool {
	return err == unix.EPIPE || err == unix.ECONNRESET || err == unix.ECONNREFUSED
}
