// SPDX-License-Identifier: Apache-2.0

package load

import (
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// What a call says: that there will be others, or that it is the last one.
const (
	hello   = 0
	goodbye = 1
)

// caller makes connections that last for one transaction each, so many at a time.
type caller struct {
	*meter
	*poller
	to    *name
	calls []call
	// open is how many there are, and over that there are to be no more.
	open int
	over bool
	out  [1]byte
	in   [1]byte
}

// call is one connection.
type call struct {
	fd    int
	since time.Duration
	asked bool
}

func (e End) call(to netip.AddrPort) (Measurement, error) {
	if err := reusePorts(); err != nil {
		return Measurement{}, err
	}
	p, err := newPoller()
	if err != nil {
		return Measurement{}, fmt.Errorf("wait for sockets: %w", err)
	}
	defer p.close()
	c := &caller{meter: newMeter(), poller: p, to: newName(to), calls: make([]call, e.Connections)}
	defer c.hangUp()
	for i := range c.calls {
		if err := c.dial(i); err != nil {
			return Measurement{}, err
		}
	}
	found, err := c.measure(e, c.step)
	if err != nil {
		return found, err
	}
	c.over = true
	if err := c.finish(); err != nil {
		return found, err
	}
	c.out[0] = goodbye
	if err := c.dial(0); err != nil {
		return found, err
	}
	return found, c.finish()
}

// reusePorts gives the calls of a namespace more ports to come from, and lets them
// take one again a second after its last call. By default a port rests for a minute,
// and there are 28,000: to a port that is always the same one they last for two
// seconds.
func reusePorts() error {
	for name, value := range map[string]string{"tcp_tw_reuse": "1", "ip_local_port_range": "20000 65535"} {
		if err := os.WriteFile("/proc/sys/net/ipv4/"+name, []byte(value), 0); err != nil {
			return fmt.Errorf("let ports be used again: %w", err)
		}
	}
	return nil
}

// dial begins a call, at the time of the last reading of the clock.
func (c *caller) dial(i int) error {
	fd, err := dial(c.to)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	c.calls[i] = call{fd: fd, since: c.now}
	c.open++
	return c.add(fd, i, unix.EPOLLIN|unix.EPOLLOUT|unix.EPOLLET)
}

// step goes on with the calls that something has happened to and returns how many
// have ended.
func (c *caller) step() (done uint64, err error) {
	events, err := c.wait(patience)
	if err == nil && len(events) == 0 {
		err = errSilent
	}
	for _, event := range events {
		i := int(event.Fd)
		ended, err := c.goOn(&c.calls[i])
		if err != nil {
			return done, err
		}
		if !ended {
			continue
		}
		c.open--
		c.read()
		c.took(c.calls[i].since)
		done++
		if c.over {
			continue
		}
		if err := c.dial(i); err != nil {
			return done, err
		}
	}
	if done == 0 {
		c.read()
	}
	return done, err
}

// goOn takes the next step of a call.
func (c *caller) goOn(a *call) (ended bool, err error) {
	if !a.asked {
		a.asked = true
		_, err = write(a.fd, c.out[:], 0)
		return false, err
	}
	n, err := receive(a.fd, c.in[:], 0)
	switch {
	case err == unix.EAGAIN:
		return false, nil
	case err == nil && n == 0:
		return false, errClosed
	case err != nil:
		return false, err
	}
	hangUp(a.fd)
	a.fd = -1
	return true, nil
}

// finish waits for the end of all calls.
func (c *caller) finish() error {
	for c.open > 0 {
		if _, err := c.step(); err != nil {
			return err
		}
	}
	return nil
}

// hangUp closes what an error has left.
func (c *caller) hangUp() {
	for _, a := range c.calls {
		if a.fd > 0 {
			hangUp(a.fd)
		}
	}
}

// answer accepts calls and sends back what they say, until one says goodbye. The
// callers close first, so the ports that have to rest are theirs.
func (e End) answer(listener int) (found peers, err error) {
	p, err := newPoller()
	if err != nil {
		return found, fmt.Errorf("wait for sockets: %w", err)
	}
	defer p.close()
	err = unix.SetNonblock(listener, true)
	if err == nil {
		err = p.add(listener, listener, unix.EPOLLIN)
	}
	if err != nil {
		return found, fmt.Errorf("wait for calls: %w", err)
	}
	a := &answerer{poller: p, listener: listener, atOnce: e.Connections}
	for !a.over || a.open > 0 {
		events, err := p.wait(patience)
		if err == nil && len(events) == 0 {
			err = errSilent
		}
		for _, event := range events {
			if err = a.serve(int(event.Fd)); err != nil {
				break
			}
		}
		if err != nil {
			return a.peers, err
		}
	}
	return a.peers, nil
}

// answerer is the state of answer.
type answerer struct {
	*poller
	peers
	listener int
	// atOnce is how many calls may wait.
	atOnce int
	open   int
	over   bool
	from   name
	buf    [1]byte
}

// serve does what there is to do with a socket.
func (a *answerer) serve(fd int) error {
	if fd == a.listener {
		return a.accept()
	}
	n, err := receive(fd, a.buf[:], 0)
	if err == unix.EAGAIN {
		return nil
	}
	if err == nil && n > 0 {
		a.over = a.over || a.buf[0] == goodbye
		_, err = write(fd, a.buf[:], 0)
		return err
	}
	if err == nil || closed(err) {
		hangUp(fd)
		a.open--
		return nil
	}
	return err
}

// accept takes the calls that wait.
func (a *answerer) accept() error {
	for range a.atOnce {
		fd, err := accept(a.listener, &a.from)
		if err == unix.EAGAIN {
			return nil
		}
		if err == nil {
			a.open++
			err = a.add(fd, fd, unix.EPOLLIN)
		}
		if err == nil {
			err = a.see(&a.from)
		}
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
	}
	return nil
}
