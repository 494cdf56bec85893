// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/rcu"
)

// errNoTCX says that the kernel has no TCX (before 6.6).
var errNoTCX = errors.New("no tcx")

// attachTCX attaches at the tail: a program that sends packets elsewhere ends
// the chain, so whoever wants to see or drop them must come before. It hides
// nobody, since it says TCX_NEXT to what it leaves alone, and is hidden only by
// one that says "pass" and means it.
func attachTCX(m *member, index int, p place) error {
	// Each round reacts to what another process did since the query.
	for range 5 {
		ids, err := queryTCX(index, p.tcx)
		if err != nil {
			return err
		}
		err = attachOnce(m, index, p, ids)
		if !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return fmt.Errorf("attached programs keep changing: %w", ErrBusy)
}

func attachOnce(m *member, index int, p place, ids []uint32) error {
	opts := link.RawAttachProgramOptions{
		Target: index, Program: m.program, Attach: p.tcx, Anchor: link.Tail(),
	}
	for _, id := range ids {
		if id == m.info.id {
			return nil
		}
		older, err := memberByID(id, p.program)
		if err != nil {
			continue // somebody else's
		}
		defer func() { _ = older.program.Close() }() // only read from
		opts.Anchor = link.ReplaceProgram(older.program)
	}
	if err := rcu.Expedite(func() error { return link.RawAttachProgram(opts) }); err != nil {
		return fmt.Errorf("attach %s to tcx: %w", p.program, err)
	}
	return nil
}

// queryTCX returns the ids of the programs on a TCX side of a device. Returns
// errNoTCX where the kernel has no such hook.
func queryTCX(index int, side ebpf.AttachType) ([]uint32, error) {
	result, err := link.QueryPrograms(link.QueryOptions{Target: index, Attach: side})
	if errors.Is(err, unix.EINVAL) || errors.Is(err, ebpf.ErrNotSupported) {
		return nil, errNoTCX
	}
	if err != nil {
		return nil, fmt.Errorf("query tcx: %w", err)
	}
	ids := make([]uint32, 0, len(result.Programs))
	for _, p := range result.Programs {
		ids = append(ids, uint32(p.ID))
	}
	return ids, nil
}

func detachTCX(index int, p place) error {
	ids, err := queryTCX(index, p.tcx)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := detachID(index, p, id); err != nil && !errors.Is(err, errNotOurs) {
			return err
		}
	}
	return nil
}

// detachID takes a program of ours off a place, of whatever layout. That it is
// gone is no error. Returns errNotOurs for somebody else's.
func detachID(index int, p place, id uint32) error {
	m, err := ownProgram(id, p.program)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	err = rcu.Expedite(func() error {
		return link.RawDetachProgram(link.RawDetachProgramOptions{Target: index, Program: m.program, Attach: p.tcx})
	})
	_ = m.program.Close() // only read from
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("detach %s from tcx: %w", p.program, err)
	}
	return nil
}
