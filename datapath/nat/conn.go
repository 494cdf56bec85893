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

	"github.com/zipline-cni/zipline/internal/nfnl"
)

const (
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
		m, index, refused, err := r.receive(first)
		if err != nil {
			return nil, err
		}
		replies[index] = reply{m, refused}
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
	err = nfnl.EachAttribute(m, func(ad *netlink.AttributeDecoder) {
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
	var all []netlink.Message
	err := r.conn.Dump(m.Message, func(m netlink.Message) error {
		all = append(all, m)
		return nil
	})
	if errors.Is(err, nfnl.ErrInterrupted) {
		return nil, &conflict{err}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.what, err)
	}
	return all, nil
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
	var failed error
	for {
		_, index, refused, err := r.receive(first)
		if err != nil {
			return err
		}
		if refused != nil && failed == nil {
			failed = fmt.Errorf("%s: %w", all[index].what, refused)
		}
		// An error of the whole batch is reported for its first message, and
		// nothing need follow.
		if int(index) == len(messages) || index == 0 && refused != nil {
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

func (r *Ruleset) send(messages []message) (first uint32, err error) {
	out := make([]netlink.Message, len(messages))
	for i, m := range messages {
		out[i] = m.Message
	}
	return r.conn.Send(out...)
}

// receive returns the next answer of an exchange: a message, or what the kernel
// reports (then refused), and which request it is about.
func (r *Ruleset) receive(first uint32) (m netlink.Message, index uint32, refused, err error) {
	m, err = r.conn.Receive(first)
	var kernel *nfnl.Error
	if errors.As(err, &kernel) {
		return m, kernel.Sequence - first, kernel.Errno, nil
	}
	return m, m.Header.Sequence - first, nil, err
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
