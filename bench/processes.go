// SPDX-License-Identifier: Apache-2.0

// Which processes an ADD starts, as the kernel tells it.

package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Numbers of linux/connector.h and linux/cn_proc.h.
const (
	cnIndexProc   = 1
	cnValueProc   = 1
	cnListen      = 1
	eventFork     = 0x1
	eventExec     = 0x2
	cnMessageSize = 20
	// eventData is where the event's own fields begin in struct proc_event.
	eventData = 16
)

// processWatch sees every fork and exec of the machine: the kernel's process
// events connector reports them without slowing anybody down as ptrace would. It
// exists in the machine's first network and PID namespaces only.
type processWatch struct {
	fd     int
	buffer []byte
}

// processEvent is a fork or an exec. In a fork, parent is the parent process and
// pid the new one.
type processEvent struct {
	what        uint32
	parent, pid int
}

// watchProcesses starts to listen. It needs CONFIG_PROC_EVENTS, which Debian has.
func watchProcesses() (*processWatch, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_CONNECTOR)
	if err != nil {
		return nil, fmt.Errorf("watch processes: %w", err)
	}
	w := &processWatch{fd: fd, buffer: make([]byte, 1<<16)}
	if err := w.listen(); err != nil {
		w.close()
		return nil, fmt.Errorf("watch processes: %w", err)
	}
	return w, nil
}

func (w *processWatch) listen() error {
	if err := unix.Bind(w.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: cnIndexProc}); err != nil {
		return err
	}
	// Without a big buffer a busy machine would make the kernel drop events.
	if err := unix.SetsockoptInt(w.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20); err != nil {
		return err
	}
	order := binary.NativeEndian
	message := make([]byte, unix.NLMSG_HDRLEN+cnMessageSize+4)
	order.PutUint32(message, uint32(len(message)))
	order.PutUint16(message[4:], unix.NLMSG_DONE)
	body := message[unix.NLMSG_HDRLEN:]
	order.PutUint32(body, cnIndexProc)
	order.PutUint32(body[4:], cnValueProc)
	order.PutUint16(body[16:], 4)
	order.PutUint32(body[cnMessageSize:], cnListen)
	if err := unix.Sendto(w.fd, message, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	// The kernel acknowledges with an event; on a kernel that has the connector
	// but no process events nothing ever comes.
	wait := unix.NsecToTimeval(int64(time.Second))
	if err := unix.SetsockoptTimeval(w.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
		return err
	}
	if _, _, err := unix.Recvfrom(w.fd, w.buffer, 0); err != nil {
		return fmt.Errorf("kernel sends no process events: %w", err)
	}
	return nil
}

func (w *processWatch) close() { _ = unix.Close(w.fd) }

// events returns what has happened since the last call. The kernel queues an
// event before the process that caused it goes on, so all of a process that was
// waited for are there.
func (w *processWatch) events() ([]processEvent, error) {
	var events []processEvent
	for {
		n, _, err := unix.Recvfrom(w.fd, w.buffer, unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EAGAIN) {
			return events, nil
		}
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read process events: %w", err)
		}
		if event, ok := parseProcessEvent(w.buffer[:n]); ok {
			events = append(events, event)
		}
	}
}

// parseProcessEvent reads a datagram. It returns false for events other than the
// start of a process and an exec; the start of a thread is none.
func parseProcessEvent(message []byte) (processEvent, bool) {
	const header = unix.NLMSG_HDRLEN + cnMessageSize
	if len(message) < header+eventData+16 {
		return processEvent{}, false
	}
	order := binary.NativeEndian
	event := message[header:]
	field := func(i int) int { return int(order.Uint32(event[eventData+4*i:])) }
	switch what := order.Uint32(event); what {
	case eventFork:
		// parent pid, parent tgid, child pid, child tgid
		return processEvent{what, field(1), field(3)}, field(2) == field(3)
	case eventExec:
		return processEvent{what, 0, field(1)}, true
	default:
		return processEvent{}, false
	}
}

// countDescendants returns how many processes root started, directly or not, and
// how many programs they and root executed. The fork of root itself has to be
// among the events, and counts as one process.
func countDescendants(events []processEvent, root int) (processes, programs int) {
	family := map[int]bool{}
	for _, e := range events {
		switch {
		case e.what == eventFork && (e.pid == root || family[e.parent]):
			family[e.pid] = true
			processes++
		case e.what == eventExec && family[e.pid]:
			programs++
		}
	}
	return processes, programs
}
