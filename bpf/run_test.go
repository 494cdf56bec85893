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
	slot    uint16 // of the network for which it was
	// reason is what the program leaves to tracers.
	reason Reason
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
	w.forget(tb)
	before := w.counters(tb)
	slot, path := w.slotsOf(ctx.Ifindex)
	passed := w.path(tb, path)
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
		got.slot = uint16(row / (Reasons * Hooks))
		got.counted[Reason(row%Reasons)] = c
	}
	// What comes from outside is the test's to know.
	if hook == HookEndpoint && got.slot != slot || hook == HookDevice && got.slot != 0 {
		tb.Errorf("%s counts %v in slot %d, the device's is %d", hook, got.counted, got.slot, slot)
	}
	wantPath(tb, hook, got.counted, w.path(tb, path), passed)
	return got
}

// forget makes the next packet ask anew, as if it came in a tick of its own.
func (w *world) forget(tb testing.TB) {
	tb.Helper()
	if haveConntrack() != nil {
		return // nothing is asked there
	}
	places := make([]uint32, w.objs.Answers.MaxEntries())
	for i := range places {
		places[i] = uint32(i)
	}
	nothing := make([]ZiplineAnswer, len(places)*ebpf.MustPossibleCPU())
	if _, err := w.objs.Answers.BatchUpdate(places, nothing, nil); err != nil {
		tb.Fatalf("clear answers: %v", err)
	}
}

// again runs the program once more, soon enough that it may still know what it
// asked about the last packet.
func (w *world) again(tb testing.TB, p *packet) outcome {
	tb.Helper()
	return w.send(tb, p, func(run func() error) error { return run() })
}

// send runs the program on a packet, and nothing around it but what it is told to.
func (w *world) send(tb testing.TB, p *packet, around func(run func() error) error) outcome {
	tb.Helper()
	frame, out := p.bytes(), skBuff{}
	opts := &ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+256), Context: p.context(), ContextOut: &out}
	var ret uint32
	err := w.do(func() error {
		return around(func() (err error) {
			ret, err = w.program(p.hook()).Run(opts)
			return err
		})
	})
	if err != nil {
		tb.Fatalf("run %s: %v", p.hook(), err)
	}
	return outcome{verdict: int32(ret), data: opts.DataOut, mark: out.Mark, reason: Reason(out.CB[4] & 0xff)}
}

// slotsOf returns where the packets of a device are counted.
func (w *world) slotsOf(index uint32) (network, path uint16) {
	for _, p := range w.peers {
		if uint32(p.index) == index {
			return p.slot, p.path
		}
	}
	return 0, 0
}

// path reads a row of the paths map.
func (w *world) path(tb testing.TB, slot uint16) (sum ZiplinePath) {
	tb.Helper()
	var cpus []ZiplinePath
	if err := w.objs.Paths.Lookup(uint32(slot), &cpus); err != nil {
		tb.Fatalf("read paths: %v", err)
	}
	for _, cpu := range cpus {
		sum.Carried, sum.Dropped, sum.Left = sum.Carried+cpu.Carried, sum.Dropped+cpu.Dropped, sum.Left+cpu.Left
	}
	return sum
}

// wantPath checks that what from_endpoint counted is counted for the sender too.
func wantPath(tb testing.TB, hook Hook, counted map[Reason]ZiplineCounter, now, before ZiplinePath) {
	tb.Helper()
	for reason, c := range counted {
		switch {
		case hook != HookEndpoint:
		case reason.Verdict() == VerdictRedirect:
			before.Carried += c.Packets
		case reason.Verdict() == VerdictDrop:
			before.Dropped += c.Packets
		default:
			before.Left += c.Packets
		}
	}
	if now != before {
		tb.Errorf("%s counts %v, and of the sender %+v, want %+v", hook, counted, now, before)
	}
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
