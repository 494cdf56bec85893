// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/bpf"
	"github.com/zipline-cni/zipline/loader"
)

// Options say what to trace.
type Options struct {
	Filter Filter
	// Count adds up in the kernel; there are no events then.
	Count bool
	// Sample gives one event in so many; 0 gives all.
	Sample uint32
	// Rate is the most events in a second; 0 is no limit.
	Rate uint64
}

// Tracer traces from [Open] to Close.
type Tracer struct {
	options Options
	spec    *ebpf.CollectionSpec
	maps    map[string]*ebpf.Map
	reader  *ringbuf.Reader
	lock    *os.File
	// conntrack says whether the tracer can look flows up.
	conntrack bool
	// sets are the programs that jump to this tracer, by their id. Their maps of
	// tracers stay open: that is what keeps the tracer in them.
	sets map[uint32]*joined
}

// joined is a set and its tracer.
type joined struct {
	*loader.RunningSet
	program *ebpf.Program
	id      ebpf.ProgramID
}

// shared are the maps that all programs of a tracer have in common.
var shared = []string{
	bpf.TraceMapTraceCounts, bpf.TraceMapTraceDevices, bpf.TraceMapTraceEvents, bpf.TraceMapTracePorts,
	bpf.TraceMapTracePrefixes, bpf.TraceMapTraceStats, bpf.TraceMapTraceWindows,
}

// Open begins to trace the programs on the devices of the calling thread's
// namespace. Returns [loader.ErrNotLoaded] where there are none,
// [loader.ErrBusy] where another process traces them, [loader.ErrOtherVersion]
// where they are too old, [loader.ErrNotSupported] and [loader.ErrNotPermitted].
func Open(options Options) (_ *Tracer, err error) {
	spec, err := bpf.LoadTrace()
	if err != nil {
		return nil, err
	}
	// The others are declared together with the endpoints, and not used here.
	maps.DeleteFunc(spec.Maps, func(name string, _ *ebpf.MapSpec) bool {
		return name != bpf.TraceMapEndpoints && name != ".rodata" && !slices.Contains(shared, name)
	})
	t := &Tracer{options: options, spec: spec, maps: map[string]*ebpf.Map{}, sets: map[uint32]*joined{}}
	defer func() {
		if err != nil {
			_ = t.Close() // the error is told
		}
	}()
	if t.lock, err = lockTrace(); err != nil {
		return nil, err
	}
	for _, name := range shared {
		if t.maps[name], err = ebpf.NewMap(spec.Maps[name]); err != nil {
			delete(t.maps, name)
			return nil, fmt.Errorf("create map %s: %w", name, explain(err))
		}
	}
	if err := options.Filter.fill(t.maps); err != nil {
		return nil, err
	}
	t.conntrack = loader.HaveConntrack() == nil
	if t.reader, err = ringbuf.NewReader(t.maps[bpf.TraceMapTraceEvents]); err != nil {
		return nil, fmt.Errorf("open events: %w", err)
	}
	return t, t.Refresh()
}

// Refresh traces what has come since, too: programs of a new version. Call it
// from a thread in the node's namespace.
func (t *Tracer) Refresh() error {
	running, err := loader.Running(func(id uint32) bool { return t.sets[id] != nil })
	if err != nil {
		return err
	}
	var errs []error
	for _, j := range t.sets {
		_, err := t.put(j)
		errs = append(errs, err)
	}
	for _, r := range running {
		j, err := t.load(r)
		if err != nil {
			errs = append(errs, err, r.Close())
			continue
		}
		t.sets[r.ID] = j
		errs = append(errs, t.settle(j))
	}
	return errors.Join(errs...)
}

// load loads the tracer with the set's endpoints.
func (t *Tracer) load(r *loader.RunningSet) (*joined, error) {
	spec := t.spec.Copy()
	constants := t.options.Filter.constants()
	constants[bpf.TraceVarHaveConntrack] = t.conntrack
	constants[bpf.TraceVarCounting] = t.options.Count
	constants[bpf.TraceVarSample] = t.options.Sample
	constants[bpf.TraceVarRate] = t.options.Rate
	for name, value := range constants {
		if err := spec.Variables[name].Set(value); err != nil {
			return nil, fmt.Errorf("set %s: %w", name, err)
		}
	}
	with := maps.Clone(t.maps)
	with[bpf.TraceMapEndpoints] = r.Endpoints
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: with})
	if err != nil {
		return nil, fmt.Errorf("load tracer: %w", explain(err))
	}
	defer coll.Close()
	info, err := coll.Programs[bpf.TraceProgTrace].Info()
	if err != nil {
		return nil, fmt.Errorf("read tracer: %w", err)
	}
	// The program is kept: the kernel may have to be told again.
	j := &joined{RunningSet: r, program: coll.DetachProgram(bpf.TraceProgTrace)}
	j.id, _ = info.ID()
	return j, nil
}

// calm is for how long the map of tracers must keep what is put there, and
// patience for how long that may take: Refresh puts it there again.
const (
	calm     = 30 * time.Millisecond
	patience = time.Second
)

// settle puts the tracer into the map until it stays. When the last process closes
// the map, the kernel empties it in a work queue, some time later: it may still be
// about to, for one that traced or only looked. While this process has it open,
// nobody else's end empties it.
func (t *Tracer) settle(j *joined) error {
	start := time.Now()
	for since := start; time.Since(since) < calm && time.Since(start) < patience; time.Sleep(calm / 10) {
		missing, err := t.put(j)
		if err != nil {
			return err
		}
		if missing {
			since = time.Now()
		}
	}
	return nil
}

// put puts the tracer where it is missing, and says whether it was. Another one is
// that of a process which is gone (the lock is ours) and had company: the kernel
// does not empty a map that somebody else looks at.
func (t *Tracer) put(j *joined) (missing bool, err error) {
	for hook := range bpf.Hook(bpf.Hooks) {
		if len(t.options.Filter.Hooks) > 0 && !slices.Contains(t.options.Filter.Hooks, hook) {
			continue
		}
		var id ebpf.ProgramID
		err := j.Tracers.Lookup(uint32(hook), &id)
		if err == nil && id == j.id {
			continue
		}
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return false, fmt.Errorf("look for tracer of %s: %w", hook, err)
		}
		missing = true
		if err := j.Tracers.Put(uint32(hook), j.program); err != nil {
			return false, fmt.Errorf("trace %s: %w", hook, explain(err))
		}
	}
	return missing, nil
}

// Read returns the next event, or [os.ErrDeadlineExceeded] when there is none
// until then.
func (t *Tracer) Read(until time.Time) (*Event, error) {
	t.reader.SetDeadline(until)
	record, err := t.reader.Read()
	if err != nil {
		return nil, fmt.Errorf("read event: %w", err)
	}
	return decode(record.RawSample)
}

// Close detaches. Nothing is left behind.
func (t *Tracer) Close() error {
	var errs []error
	for _, j := range t.sets {
		for hook := range uint32(bpf.Hooks) {
			if err := j.Tracers.Delete(hook); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				errs = append(errs, fmt.Errorf("stop trace: %w", err))
			}
		}
		errs = append(errs, j.Close(), j.program.Close())
	}
	if t.reader != nil {
		errs = append(errs, t.reader.Close())
	}
	for _, m := range t.maps {
		errs = append(errs, m.Close())
	}
	if t.lock != nil {
		errs = append(errs, t.lock.Close())
	}
	return errors.Join(errs...)
}

// lockTrace takes the node's only place for a tracer. The kernel gives it back
// when the process ends.
func lockTrace() (*os.File, error) {
	dir, err := loader.NodeDir()
	if err != nil {
		return nil, err
	}
	file, err := os.OpenFile(filepath.Join(dir, "trace.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = file.Close() // the error is told
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("trace this node: %w", loader.ErrBusy)
		}
		return nil, fmt.Errorf("lock node for tracing: %w", err)
	}
	return file, nil
}

// explain says what errors of the kernel mean here.
func explain(err error) error {
	switch {
	case errors.Is(err, ebpf.ErrNotSupported):
		return fmt.Errorf("%w (a ring buffer takes 5.8): %w", loader.ErrNotSupported, err)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: %w", loader.ErrNotPermitted, err)
	default:
		return err
	}
}
