// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/bpf"
)

// load loads the programs, with the maps of a set or, where that is nil, with
// new ones. Returns a [LoadError].
func load(with *set) (*set, *record, error) {
	var maps map[string]*ebpf.Map
	if with != nil {
		opened, release, err := with.openMaps()
		if err != nil {
			return nil, nil, err
		}
		defer release()
		maps = opened
	}
	s, rec, err := tryLoad(maps)
	if errors.Is(err, unix.EPERM) {
		// Kernels before 5.11 charge maps to RLIMIT_MEMLOCK and say EPERM.
		unlimited := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
		if unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unlimited) == nil {
			s, rec, err = tryLoad(maps)
		}
	}
	if err != nil {
		return nil, nil, newLoadError(err)
	}
	return s, rec, nil
}

func tryLoad(maps map[string]*ebpf.Map) (_ *set, _ *record, err error) {
	spec, err := bpf.LoadZipline()
	if err != nil {
		return nil, nil, err
	}
	askForConntrack()
	rec := &record{Digest: bpf.Digest(), Module: conntrackModule(), Programs: map[string]programID{}}
	rec.Conntrack = haveConntrack(spec) == nil
	delete(spec.Programs, bpf.ZiplineProgProbeConntrack)
	if err := setConstants(spec, rec.Conntrack); err != nil {
		return nil, nil, err
	}
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: maps})
	if err != nil {
		return nil, nil, err
	}
	defer coll.Close()
	// No program reads them, but whoever finds a program finds its maps.
	for _, name := range []string{bpf.ZiplineMapNetworks, bpf.ZiplineMapPathSlots} {
		if err := coll.Programs[bpf.ZiplineProgFromEndpoint].BindMap(coll.Maps[name]); err != nil {
			return nil, nil, fmt.Errorf("bind map %q: %w", name, err)
		}
	}
	duplicate := func(name string) (int, error) {
		return unix.FcntlInt(uintptr(coll.Programs[name].FD()), unix.F_DUPFD_CLOEXEC, 0)
	}
	fd, err := duplicate(bpf.ZiplineProgFromEndpoint)
	if err != nil {
		return nil, nil, fmt.Errorf("duplicate descriptor: %w", err)
	}
	s, err := setOfProgram(fd)
	if err != nil {
		return nil, nil, err
	}
	if err := s.addSiblings(duplicate); err != nil {
		s.close()
		return nil, nil, err
	}
	for _, m := range s.members() {
		rec.Programs[m.info.name] = programID{m.info.id, m.info.tag, m.info.loadTime}
	}
	return s, rec, nil
}

// setConstants sets what the programs take for granted on this kernel.
func setConstants(spec *ebpf.CollectionSpec, conntrack bool) error {
	hz, err := tickRate()
	if err != nil {
		return err
	}
	constants := map[string]any{bpf.ZiplineVarHaveConntrack: conntrack, bpf.ZiplineVarTickHz: hz}
	for name, value := range constants {
		if err := spec.Variables[name].Set(value); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	return nil
}

// tickRate returns the kernel's jiffies per second: the coarse clock moves once
// per tick, and its resolution says so (KTIME_LOW_RES).
func tickRate() (uint32, error) {
	var tick unix.Timespec
	if err := unix.ClockGetres(unix.CLOCK_MONOTONIC_COARSE, &tick); err != nil {
		return 0, fmt.Errorf("read length of a tick: %w", err)
	}
	if tick.Nano() <= 0 || tick.Nano() > int64(time.Second) {
		return 0, fmt.Errorf("length of a tick is %d ns", tick.Nano())
	}
	return uint32((int64(time.Second) + tick.Nano()/2) / tick.Nano()), nil
}

// haveConntrack loads the program that needs the conntrack functions: nil, or
// why the kernel does not have them.
func haveConntrack(spec *ebpf.CollectionSpec) error {
	probe := spec.Programs[bpf.ZiplineProgProbeConntrack]
	prog, err := ebpf.NewProgram(probe.Copy())
	if err != nil {
		return fmt.Errorf("look up conntrack from eBPF: %w", err)
	}
	return prog.Close()
}

// askForConntrack makes the kernel load nf_conntrack where it is a module: a
// request to its netlink interface does, and no binary is executed. Its
// functions can only be called by a program that is loaded after it.
func askForConntrack() {
	if conntrackModule() {
		return
	}
	const getStats = 5 // IPCTNL_MSG_CT_GET_STATS
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_CTNETLINK<<8|getStats, unix.NLM_F_ACK)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_UNSPEC, Version: nl.NFNETLINK_V0})
	_, _ = req.Execute(unix.NETLINK_NETFILTER, 0) // the request itself is the purpose
}

// newLoadError finds out why a load went wrong before it reports it.
func newLoadError(err error) *LoadError {
	if errors.Is(err, unix.EPERM) || errors.Is(err, ebpf.ErrRestrictedKernel) {
		return &LoadError{Err: err, Kind: ErrNotPermitted}
	}
	missing := features.HaveProgramHelper(ebpf.SchedCLS, asm.FnRedirectPeer)
	if errors.Is(missing, ebpf.ErrNotSupported) {
		return &LoadError{Err: fmt.Errorf("%w (bpf_redirect_peer: %w)", err, missing), Kind: ErrNotSupported}
	}
	if errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, unix.ENOSYS) {
		return &LoadError{Err: err, Kind: ErrNotSupported}
	}
	return &LoadError{Err: err}
}
