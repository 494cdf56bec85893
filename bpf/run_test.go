// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"sync"
	"testing"

	"github.com/cilium/ebpf"
)

// outcome is what the program did with a packet.
type outcome struct {
	verdict int32
	data    []byte
	mark    uint32
	// counted has what was added to the program's counters.
	counted map[Reason]ZiplineCounter
	slot    uint32 // in which it was
}

var runLock sync.Mutex // the counters belong to one run at a time

// run runs from_endpoint on a frame as if it had come from a device.
func (w *world) run(tb testing.TB, frame []byte, ctx skBuff) outcome {
	tb.Helper()
	return w.runHook(tb, HookEndpoint, frame, ctx, staging{})
}

// runHook runs a program on a frame that has been made ready for it.
func (w *world) runHook(tb testing.TB, hook Hook, frame []byte, ctx skBuff, ready staging) outcome {
	tb.Helper()
	runLock.Lock()
	defer runLock.Unlock()
	w.notePorts(tb)
	before := w.counters(tb)
	out := skBuff{}
	ctx.CB = ready.cb(hook)
	opts := &ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+256), Context: ctx, ContextOut: &out}
	var ret uint32
	err := w.do(func() (err error) {
		ret, err = w.stage.program.Run(opts)
		return err
	})
	if err != nil {
		tb.Fatalf("run %s: %v", hook, err)
	}
	got := outcome{verdict: int32(ret), data: opts.DataOut, mark: out.Mark, counted: map[Reason]ZiplineCounter{}}
	for row, c := range w.counters(tb) {
		c.Packets -= before[row].Packets
		c.Bytes -= before[row].Bytes
		if c.Packets == 0 && c.Bytes == 0 {
			continue
		}
		if Hook(row/Reasons%Hooks) != hook {
			if w.attached {
				continue // a packet that the kernel sent of its own accord
			}
			tb.Errorf("%s counts in row %d of %s", hook, row%Reasons, Hook(row/Reasons%Hooks))
		}
		got.slot = row / (Reasons * Hooks)
		got.counted[Reason(row%Reasons)] = c
	}
	// What comes from outside is the test's to know.
	if want := w.slotOf(ctx.Ifindex); hook == HookEndpoint && got.slot != want || hook == HookDevice && got.slot != 0 {
		tb.Errorf("%s counts %v in slot %d, the device's is %d", hook, got.counted, got.slot, want)
	}
	return got
}

// slotOf returns the slot of a device's network.
func (w *world) slotOf(index uint32) uint32 {
	for _, p := range w.peers {
		if uint32(p.index) == index {
			return p.slot
		}
	}
	return 0
}

// counters returns all rows, also those that no reason names.
func (w *world) counters(tb testing.TB) map[uint32]ZiplineCounter {
	tb.Helper()
	keys := make([]uint32, worldSlots*Hooks*Reasons)
	values := make([]ZiplineCounter, len(keys)*ebpf.MustPossibleCPU())
	cursor := ebpf.MapBatchCursor{}
	n, err := w.objs.Counters.BatchLookup(&cursor, keys, values, nil)
	if errors.Is(err, ebpf.ErrNotSupported) { // before 5.13, for maps of this type
		n, err = w.countersOneByOne(keys, values)
	}
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		tb.Fatalf("read counters: %v", err)
	}
	rows := make(map[uint32]ZiplineCounter, n)
	for i, row := range keys[:n] {
		var sum ZiplineCounter
		for cpu := range ebpf.MustPossibleCPU() {
			sum.Packets += values[i*ebpf.MustPossibleCPU()+cpu].Packets
			sum.Bytes += values[i*ebpf.MustPossibleCPU()+cpu].Bytes
		}
		rows[row] = sum
	}
	return rows
}

// packets sums up what a program counted for one reason, of whatever network.
func packets(rows map[uint32]ZiplineCounter, hook Hook, reason Reason) (sum uint64) {
	for slot := range uint32(worldSlots) {
		sum += rows[(slot*Hooks+uint32(hook))*Reasons+uint32(reason)].Packets
	}
	return sum
}

// countersOneByOne does what BatchLookup does.
func (w *world) countersOneByOne(keys []uint32, values []ZiplineCounter) (int, error) {
	for i := range keys {
		keys[i] = uint32(i)
		var row []ZiplineCounter
		if err := w.objs.Counters.Lookup(keys[i], &row); err != nil {
			return 0, err
		}
		copy(values[i*len(row):], row)
	}
	return len(keys), nil
}
