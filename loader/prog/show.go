// SPDX-License-Identifier: Apache-2.0

package prog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Details are what the kernel tells of a loaded program.
type Details struct {
	ID   uint32
	Name string
	Type string
	Tag  string
	// Loaded is when it was loaded.
	Loaded time.Time
	UserID uint32
	MapIDs []uint32
	// JitedBytes is its length in machine code, 0 where it is interpreted.
	JitedBytes uint32
	// RunCount and RunTime count while the kernel's statistics are on
	// (kernel.bpf_stats_enabled), which StatsEnabled says they are.
	RunCount     uint64
	RunTime      time.Duration
	StatsEnabled bool
	// Instructions as the kernel runs them, one in a line.
	Instructions []string
	// AttachedTo are the places in this network namespace.
	AttachedTo []Attached
}

// ErrNoProgram says that no program has the id or name.
var ErrNoProgram = errors.New("there is no such program")

// Show returns the details of a program, named by its id, or by its name where
// one program that is attached here, or else one on the machine, has it. Returns
// [ErrNoProgram].
func Show(word string) (_ *Details, err error) {
	attached, err := List("")
	if err != nil {
		return nil, err
	}
	id, err := find(word, attached)
	if err != nil {
		return nil, err
	}
	p, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: no program on this machine has the id %d", ErrNoProgram, id)
	}
	if err != nil {
		return nil, fmt.Errorf("open program %s: %w", word, err)
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	d, err := details(id, p)
	if err != nil {
		return nil, err
	}
	for _, a := range attached {
		if a.ID == id {
			d.AttachedTo = append(d.AttachedTo, a)
		}
	}
	return d, nil
}

func details(id uint32, p *ebpf.Program) (*Details, error) {
	info, err := p.Info()
	if err != nil {
		return nil, fmt.Errorf("read program %d: %w", id, err)
	}
	d := &Details{ID: id, Name: info.Name, Type: info.Type.String(), Tag: info.Tag, StatsEnabled: statsEnabled()}
	if since, ok := info.LoadTime(); ok {
		d.Loaded = bootTime().Add(since)
	}
	d.UserID, _ = info.CreatedByUID()
	d.JitedBytes, _ = info.JitedSize()
	ids, _ := info.MapIDs()
	for _, m := range ids {
		d.MapIDs = append(d.MapIDs, uint32(m))
	}
	if stats, err := p.Stats(); err == nil {
		d.RunCount, d.RunTime = stats.RunCount, stats.Runtime
	}
	instructions, err := info.Instructions()
	if err != nil {
		return nil, fmt.Errorf("read instructions of program %d: %w", id, err)
	}
	for line := range strings.Lines(fmt.Sprintf("%v", instructions)) {
		d.Instructions = append(d.Instructions, strings.TrimRight(line, "\n"))
	}
	return d, nil
}

// find resolves an id or name.
func find(word string, attached []Attached) (uint32, error) {
	if id, err := strconv.ParseUint(word, 10, 32); err == nil {
		return uint32(id), nil
	}
	ids := map[uint32]bool{}
	for _, a := range attached {
		if a.is(word) {
			ids[a.ID] = true
		}
	}
	if len(ids) == 0 {
		var id ebpf.ProgramID
		var err error
		for {
			if id, err = ebpf.ProgramGetNextID(id); err != nil {
				break
			}
			if info, err := infoOf(uint32(id)); err == nil && info.Name == kernelName(word) {
				ids[uint32(id)] = true
			}
		}
		if !errors.Is(err, os.ErrNotExist) {
			return 0, fmt.Errorf("list programs: %w", err)
		}
	}
	switch len(ids) {
	case 0:
		return 0, fmt.Errorf("%w: none that is loaded or pinned on this machine is called %s", ErrNoProgram, word)
	case 1:
		for id := range ids {
			return id, nil
		}
	}
	var texts []string
	for id := range ids {
		texts = append(texts, strconv.FormatUint(uint64(id), 10))
	}
	return 0, fmt.Errorf("several programs are called %s, say which by its id: %s", word, strings.Join(texts, ", "))
}

// Measure switches the kernel's statistics on for a while, or until the context
// ends, and sets the counts to what the program did meanwhile.
func (d *Details) Measure(ctx context.Context, how time.Duration) (err error) {
	p, err := ebpf.NewProgramFromID(ebpf.ProgramID(d.ID))
	if err != nil {
		return fmt.Errorf("open program %d: %w", d.ID, err)
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	on, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		return fmt.Errorf("enable statistics: %w", err)
	}
	defer func() { err = errors.Join(err, on.Close()) }()
	before, err := p.Stats()
	if err != nil {
		return fmt.Errorf("read statistics: %w", err)
	}
	select {
	case <-ctx.Done():
	case <-time.After(how):
	}
	after, err := p.Stats()
	if err != nil {
		return fmt.Errorf("read statistics: %w", err)
	}
	d.RunCount, d.RunTime = after.RunCount-before.RunCount, after.Runtime-before.Runtime
	return nil
}

func statsEnabled() bool {
	data, err := os.ReadFile("/proc/sys/kernel/bpf_stats_enabled")
	return err == nil && strings.TrimSpace(string(data)) == "1"
}

// bootTime is when the clock of load times was zero.
func bootTime() time.Time {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return time.Time{}
	}
	return time.Now().Add(-time.Duration(now.Nano()))
}
