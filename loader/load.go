// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/bpf"
)

// load loads the program, with the maps of a set or, where that is nil, with
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
	rec := &record{Digest: bpf.Digest(), Module: conntrackModule()}
	rec.Conntrack = haveConntrack(spec) == nil
	delete(spec.Programs, bpf.ZiplineProgProbeConntrack)
	if err := spec.Variables[bpf.ZiplineVarHaveConntrack].Set(rec.Conntrack); err != nil {
		return nil, nil, fmt.Errorf("set %s: %w", bpf.ZiplineVarHaveConntrack, err)
	}
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: maps})
	if err != nil {
		return nil, nil, err
	}
	defer coll.Close()
	fd, err := unix.FcntlInt(uintptr(coll.Programs[bpf.ZiplineProgFromEndpoint].FD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("duplicate descriptor: %w", err)
	}
	s, err := setOfProgram(fd)
	if err != nil {
		return nil, nil, err
	}
	rec.ID, rec.Tag, rec.LoadTime = s.info.id, s.info.tag, s.info.loadTime
	return s, rec, nil
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
