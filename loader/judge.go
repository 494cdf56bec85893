// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/bpf"
)

// Judge tells what the programs make of a packet, without there being one: it
// runs copies of them (BPF_PROG_TEST_RUN) that read the node's own maps and the
// kernel's own conntrack, routes and neighbours, and count for themselves. The
// answer needs no second description of the rules beside the C, and nothing on
// the node changes by it: what the programs write (counters, the hints of
// bpf/lib/port.h) the copies have maps of their own for, and what they redirect
// in such a run goes nowhere.
//
// The copies are of this binary's version, whatever is attached.
type Judge struct {
	programs map[bpf.Hook]*ebpf.Program
	counters *ebpf.Map
	memory   *ebpf.Memory
	rows     []byte // of the counters, as last read
	last     int    // the row that counted the last packet
}

// counterSize is that of a row of the counters map.
const counterSize = int(unsafe.Sizeof(bpf.ZiplineCounter{}))

// NewJudge loads the copies. They live until Close. Returns a [LoadError].
func (n *Node) NewJudge() (_ *Judge, err error) {
	spec, err := bpf.LoadZipline()
	if err != nil {
		return nil, err
	}
	for name := range spec.Programs {
		if name != bpf.ZiplineProgFromEndpoint && name != bpf.ZiplineProgFromUplink {
			delete(spec.Programs, name)
		}
	}
	if err := setConstants(spec, n.TracksFlows()); err != nil {
		return nil, err
	}
	// One CPU runs one packet at a time, and memory is read sooner than a map.
	counters := spec.Maps[bpf.ZiplineMapCounters]
	counters.Type = ebpf.Array
	counters.Flags |= unix.BPF_F_MMAPABLE
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: n.maps})
	if err != nil {
		return nil, newLoadError(err)
	}
	defer coll.Close()
	if err := n.copyPorts(coll.Maps[bpf.ZiplineMapNatPorts]); err != nil {
		return nil, err
	}
	j := &Judge{
		programs: map[bpf.Hook]*ebpf.Program{
			bpf.HookEndpoint: coll.DetachProgram(bpf.ZiplineProgFromEndpoint),
			bpf.HookUplink:   coll.DetachProgram(bpf.ZiplineProgFromUplink),
		},
		counters: coll.DetachMap(bpf.ZiplineMapCounters),
	}
	if j.memory, err = j.counters.Memory(); err != nil {
		return nil, errors.Join(fmt.Errorf("map counters: %w", err), j.Close())
	}
	j.rows = make([]byte, int(j.counters.MaxEntries())*counterSize)
	return j, nil
}

// copyPorts copies the only entry of the node's map.
func (n *Node) copyPorts(to *ebpf.Map) (err error) {
	from, err := n.openMap(bpf.ZiplineMapNatPorts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	ports, err := from.LookupBytes(uint32(0))
	if err == nil {
		err = to.Put(uint32(0), ports)
	}
	if err != nil {
		return fmt.Errorf("copy ports: %w", err)
	}
	return nil
}

// skBuff is struct __sk_buff up to what a run needs.
type skBuff struct {
	_       [10]uint32
	Ifindex uint32
	_       [37]uint32
}

// Ask returns the reason that the program gives for a frame that comes in by the
// device with this index, in the calling thread's network namespace. The hook is
// [bpf.HookEndpoint] or [bpf.HookUplink].
func (j *Judge) Ask(hook bpf.Hook, index int, frame []byte) (bpf.Reason, error) {
	program := j.programs[hook]
	if program == nil {
		return 0, fmt.Errorf("ask %s: %w", hook, ErrNotFound)
	}
	if _, err := program.Run(&ebpf.RunOptions{Data: frame, Context: skBuff{Ifindex: uint32(index)}}); err != nil {
		return 0, fmt.Errorf("ask %s: %w", hook, err)
	}
	row, err := j.counted()
	if err != nil {
		return 0, fmt.Errorf("ask %s: %w", hook, err)
	}
	return bpf.Reason(row % bpf.Reasons), nil
}

// counted returns the row that counted the packet, and clears it. Many packets
// in a row have the same.
func (j *Judge) counted() (int, error) {
	if err := j.read(j.last, j.last+1); err != nil {
		return 0, err
	}
	if j.packets(j.last) == 0 {
		if err := j.read(0, len(j.rows)/counterSize); err != nil {
			return 0, err
		}
		for j.last = 0; j.packets(j.last) == 0; {
			if j.last++; j.last == len(j.rows)/counterSize {
				j.last = 0
				return 0, errors.New("the packet was not counted")
			}
		}
	}
	if _, err := j.memory.WriteAt(make([]byte, counterSize), int64(j.last*counterSize)); err != nil {
		return 0, fmt.Errorf("clear counter: %w", err)
	}
	return j.last, nil
}

func (j *Judge) read(from, to int) error {
	if _, err := j.memory.ReadAt(j.rows[from*counterSize:to*counterSize], int64(from*counterSize)); err != nil {
		return fmt.Errorf("read counters: %w", err)
	}
	return nil
}

func (j *Judge) packets(row int) uint64 {
	return binary.NativeEndian.Uint64(j.rows[row*counterSize:])
}

// Close unloads the copies.
func (j *Judge) Close() error {
	errs := []error{j.counters.Close()}
	for _, p := range j.programs {
		errs = append(errs, p.Close())
	}
	return errors.Join(errs...)
}
