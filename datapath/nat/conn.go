// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	// defaultSendBuffer is less than the kernel's default (212,992 bytes minus
	// overhead). A batch is one datagram, and must fit.
	defaultSendBuffer = 64 << 10
	// maxAttempts at a batch that lost a race. With the pauses below it gives
	// up after about a second of uninterrupted change by others.
	maxAttempts = 200
	maxPause    = 10 * time.Millisecond
)

// conflict says that the ruleset changed between a look at it and the batch
// that relied on it.
type conflict struct{ cause error }

func (c *conflict) Error() string { return "ruleset keeps changing: " + c.cause.Error() }
func (c *conflict) Unwrap() error { return c.cause }

// retry calls f again for as long as it ends in a conflict.
func retry(f func() error) error {
	pause := 50 * time.Microsecond
	for attempt := 1; ; attempt++ {
		err := f()
		var lost *conflict
		if !errors.As(err, &lost) || attempt == maxAttempts {
			return err
		}
		// Random, so that those who lost to each other do not meet again.
		time.Sleep(rand.N(pause))
		pause = min(2*pause, maxPause)
	}
}

// snapshot is what the kernel answered to some requests.
type snapshot struct {
	generation uint32 // of the ruleset, before the first answer
	replies    []reply
}

// reply is the answer to one request.
type reply struct {
	netlink.Message
	err error // ENOENT for what is not there
}

func (r reply) missing() bool { return errors.Is(r.err, unix.ENOENT) }

// look sends requests that are answered by one message each, in one datagram.
func (r *Ruleset) look(requests ...message) (*snapshot, error) {
	all := append([]message{newMessage(unix.NFT_MSG_GETGEN, 0, "look up generation", func(*attributes) {})}, requests...)
	first, err := r.send(all)
	if err != nil {
		return nil, err
	}
	replies := make([]reply, len(all))
	for range all {
		m, err := r.receive(first)
		seq := m.Header.Sequence
		if err != nil {
			if seq = sequence(err); seq == 0 {
				return nil, fmt.Errorf("read netfilter socket: %w", err)
			}
		}
		replies[seq-first] = reply{m, err}
	}
	for i, reply := range replies {
		if reply.err != nil && (i == 0 || !reply.missing()) {
			return nil, fmt.Errorf("%s: %w", all[i].what, reply.err)
		}
	}
	s := &snapshot{replies: replies[1:]}
	s.generation, err = decodeGeneration(replies[0].Message)
	return s, err
}

func decodeGeneration(m netlink.Message) (generation uint32, err error) {
	err = eachAttribute(m, func(ad *netlink.AttributeDecoder) {
		if ad.Type() == unix.NFTA_GEN_ID {
			generation = ad.Uint32()
		}
	})
	if err != nil {
		return 0, fmt.Errorf("decode generation: %w", err)
	}
	return generation, nil
}

// dump asks for all objects of a kind. It is consistent only if the generation
// is the same before and after.
func (r *Ruleset) dump(m message) ([]netlink.Message, error) {
	m.Header.Flags |= netlink.Dump
	replies, err := r.conn.Execute(m.Message)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.what, err)
	}
	return replies, nil
}

// unchanged returns a conflict unless the ruleset is still of this generation.
func (r *Ruleset) unchanged(generation uint32) error {
	now, err := r.look()
	if err != nil {
		return err
	}
	if now.generation != generation {
		return &conflict{unix.ERESTART}
	}
	return nil
}

// commit executes messages as one transaction, provided that the ruleset is of
// the generation given. It returns a conflict otherwise.
func (r *Ruleset) commit(generation uint32, messages []message) error {
	if len(messages) == 0 {
		return nil
	}
	all := append([]message{batchBegin(generation)}, messages...)
	// One acknowledgement for all: it is sent after the commit.
	all[len(all)-1].Header.Flags |= netlink.Acknowledge
	all = append(all, batchEdge(unix.NFNL_MSG_BATCH_END, nil))
	first, err := r.send(all)
	if err != nil {
		return err
	}
	last := first + uint32(len(messages))
	var failed error
	for {
		m, err := r.receive(first)
		seq := m.Header.Sequence
		if err != nil {
			if seq = sequence(err); seq == 0 {
				return fmt.Errorf("read netfilter socket: %w", err)
			}
			if failed == nil {
				failed = fmt.Errorf("%s: %w", all[seq-first].what, errors.Unwrap(err))
			}
		}
		// An error of the whole batch is reported for its first message, and
		// nothing need follow.
		if seq == last || seq == first && err != nil {
			return raced(failed)
		}
	}
}

// raced makes a conflict of the errors that a change by others can lead to.
func raced(err error) error {
	// EEXIST, ENOTEMPTY and ENOENT too: a look that falls into another's
	// commit can see the new generation and yet an old set.
	for _, errno := range []unix.Errno{unix.ERESTART, unix.EAGAIN, unix.EBUSY, unix.EINTR,
		unix.EEXIST, unix.ENOTEMPTY, unix.ENOENT} {
		if errors.Is(err, errno) {
			return &conflict{err}
		}
	}
	return err
}

// send sends messages as one datagram and returns the first's sequence number;
// the others follow without a gap.
func (r *Ruleset) send(messages []message) (first uint32, err error) {
	size := 0
	out := make([]netlink.Message, len(messages))
	for i, m := range messages {
		out[i] = m.Message
		size += len(m.Data) + 20
	}
	if size > r.written {
		// The kernel accounts more than the payload; this needs CAP_NET_ADMIN,
		// as everything here does.
		if err := r.conn.SetWriteBuffer(2 * size); err != nil {
			return 0, fmt.Errorf("widen netfilter socket for %d bytes: %w", size, err)
		}
		r.written = size
	}
	sent, err := r.conn.SendMessages(out)
	if err != nil {
		return 0, fmt.Errorf("write netfilter socket: %w", err)
	}
	return sent[0].Header.Sequence, nil
}

// receive returns the next message or error of the exchange that began with
// sequence number first, and skips what an earlier one left behind.
func (r *Ruleset) receive(first uint32) (netlink.Message, error) {
	for {
		messages, err := r.conn.Receive()
		if err != nil {
			if seq := sequence(err); seq != 0 && seq-first > 1<<31 {
				continue
			}
			return netlink.Message{}, err
		}
		for _, m := range messages {
			if m.Header.Sequence-first < 1<<31 {
				return m, nil
			}
		}
	}
}

// sequence returns which message the kernel reports an error of, 0 for an error
// of the socket.
func sequence(err error) uint32 {
	var op *netlink.OpError
	if errors.As(err, &op) {
		return op.Sequence
	}
	return 0
}

func batchBegin(generation uint32) message {
	e := netlink.NewAttributeEncoder()
	e.ByteOrder = binary.BigEndian
	e.Uint32(attrGenID, generation)
	data, _ := e.Encode() // a number cannot fail
	return batchEdge(unix.NFNL_MSG_BATCH_BEGIN, data)
}

func batchEdge(kind netlink.HeaderType, attributes []byte) message {
	header := []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES}
	return message{what: "commit ruleset", Message: netlink.Message{
		Header: netlink.Header{Type: kind, Flags: netlink.Request},
		Data:   append(header, attributes...),
	}}
}
