// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// detachPrograms takes every program from a side of a device and returns a
// function that puts them back.
func (top *topology) detachPrograms(t *testing.T, device string, side ebpf.AttachType) func() {
	t.Helper()
	var programs []*ebpf.Program
	var index int
	err := top.Node.Do(func() error {
		dev, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		index = dev.Index
		attached, err := link.QueryPrograms(link.QueryOptions{Target: index, Attach: side})
		if err != nil {
			return fmt.Errorf("query programs of %s: %w", device, err)
		}
		for _, p := range attached.Programs {
			program, err := ebpf.NewProgramFromID(p.ID)
			if err != nil {
				return err
			}
			programs = append(programs, program)
			if err := link.RawDetachProgram(link.RawDetachProgramOptions{
				Target: index, Program: program, Attach: side,
			}); err != nil {
				return fmt.Errorf("detach program: %w", err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(programs) == 0 {
		t.Fatalf("%s has no program to detach", device)
	}
	return func() {
		err := top.Node.Do(func() error {
			var errs []error
			for _, program := range programs {
				errs = append(errs, link.RawAttachProgram(link.RawAttachProgramOptions{
					Target: index, Program: program, Attach: side,
				}), program.Close())
			}
			return errors.Join(errs...)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// changeEndpoint changes an address's entry in the pinned endpoints map, or
// deletes it where change returns nil, and returns a function that puts the old
// value back.
func (top *topology) changeEndpoint(t *testing.T, addr netip.Addr, change func(value []byte) []byte) func() {
	t.Helper()
	var key, old []byte
	err := top.withMap("endpoints", func(m *ebpf.Map) error {
		entries := m.Iterate()
		var k, v []byte
		for entries.Next(&k, &v) {
			if bytes.Contains(k, addr.AsSlice()) {
				key, old = bytes.Clone(k), bytes.Clone(v)
			}
		}
		if err := entries.Err(); err != nil || key == nil {
			return fmt.Errorf("find endpoint of %s: %w", addr, errors.Join(err, ebpf.ErrKeyNotExist))
		}
		if value := change(bytes.Clone(old)); value != nil {
			return m.Put(key, value)
		}
		return m.Delete(key)
	})
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := top.withMap("endpoints", func(m *ebpf.Map) error { return m.Put(key, old) }); err != nil {
			t.Fatal(err)
		}
	}
}

// withMap opens a map of the node by its pin.
func (top *topology) withMap(name string, f func(*ebpf.Map) error) error {
	return top.Node.Do(func() error {
		pins, err := filepath.Glob("/sys/fs/bpf/zipline/*/*/" + name)
		if err != nil || len(pins) != 1 {
			return fmt.Errorf("find pin of %s: %q, %w", name, pins, err)
		}
		m, err := ebpf.LoadPinnedMap(pins[0], nil)
		if err != nil {
			return fmt.Errorf("open %s: %w", name, err)
		}
		defer func() { _ = m.Close() }()
		return f(m)
	})
}
