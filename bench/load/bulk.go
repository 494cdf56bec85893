// SPDX-License-Identifier: Apache-2.0

package load

import "golang.org/x/sys/unix"

// bulk is the size of a write and of a read of bulk data. Below 64 KiB the system
// calls show; far above, the copies leave the CPU's cache. It is iperf3's default too.
const bulk = 128 << 10

// send sends over every connection until its peer closes it.
func (e End) send(g *group) error {
	buf := make([]byte, bulk)
	return g.serve(func(fd int, events uint32) (bool, error) {
		// The look at what the peer has to say costs a thousandth of the write.
		n, err := receive(fd, buf[:1], unix.MSG_DONTWAIT)
		if err == nil {
			return n == 0, nil
		}
		if err == unix.EAGAIN && events&unix.EPOLLOUT != 0 {
			_, err = write(fd, buf, g.flags)
		}
		return false, err
	})
}

func (e End) receive(g *group) (Measurement, error) {
	buf := make([]byte, bulk)
	m := newMeter()
	found, err := m.measure(e, func() (total uint64, err error) {
		events, err := g.ready()
		if err == nil && len(events) == 0 {
			err = errSilent
		}
		for _, event := range events {
			n, err := receive(g.fds[event.Fd], buf, g.flags)
			if g.notYet(err) {
				continue
			}
			if err == nil && n == 0 {
				err = errClosed
			}
			if err != nil {
				return total, err
			}
			total += uint64(n)
		}
		m.read()
		return total, err
	})
	if err != nil {
		return found, err
	}
	// An end without a goodbye would be answered by a reset for every packet that
	// is still under way.
	for _, fd := range g.fds {
		if err := unix.Shutdown(fd, unix.SHUT_WR); err != nil && err != unix.ENOTCONN {
			return found, err
		}
	}
	for _, fd := range g.fds {
		n, err := drain(fd, buf)
		if err != nil {
			return found, err
		}
		found.Total += n
	}
	return found, nil
}

// drain reads until the peer closes.
func drain(fd int, buf []byte) (total uint64, err error) {
	for {
		n, err := read(fd, buf)
		if n == 0 || err != nil {
			if closed(err) {
				err = nil
			}
			return total, err
		}
		total += uint64(n)
	}
}
