// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"

	"github.com/zipline-cni/zipline/bpf"
)

// Tier is how far packets can be carried past the stack on this kernel.
type Tier string

// The tiers, the best first.
const (
	// TierConntrack: established flows, whoever translated them.
	TierConntrack Tier = "conntrack"
	// TierDirect: between neighbours, where no translation can be involved.
	TierDirect Tier = "direct"
	// TierKernel: nothing; the stack forwards everything.
	TierKernel Tier = "kernel"
)

// Report is what the kernel has, found out by trying. Each field is nil or
// says why not.
type Report struct {
	// Programs: the kernel loads a program of ours for this process.
	Programs error
	// BPFFS: there is a bpffs to pin in, or one can be mounted.
	BPFFS error
	// RedirectPeer: bpf_redirect_peer (5.10).
	RedirectPeer error
	// Conntrack: bpf_skb_ct_lookup (5.18) and bpf_ct_change_timeout (6.0).
	Conntrack error
	// TCX: the TCX hook (6.6). Without it clsact serves; it decides no tier.
	TCX error
}

// Tier returns the best tier that the kernel can do.
func (r *Report) Tier() Tier {
	switch {
	case r.Err() != nil:
		return TierKernel
	case r.Conntrack != nil:
		return TierDirect
	default:
		return TierConntrack
	}
}

// Err returns nil if the programs can be used at all, else what is missing.
func (r *Report) Err() error {
	return errors.Join(r.Programs, r.RedirectPeer, r.BPFFS)
}

// Probe tries what the programs need. It takes some milliseconds and leaves
// nothing behind but a bpffs, mounted where there was none.
func Probe() *Report { return Site{}.Probe() }

// Probe tries what the programs need at this site. See [Probe].
func (s Site) Probe() *Report {
	return &Report{
		Programs:     HavePrograms(),
		BPFFS:        s.HaveBPFFS(),
		RedirectPeer: HaveRedirectPeer(),
		Conntrack:    HaveConntrack(),
		TCX:          HaveTCX(),
	}
}

// HavePrograms loads the smallest tc program, and reads the types that the kernel
// describes (BTF), which ours are fitted to: nil, or [ErrNotPermitted],
// [ErrNotSupported] or another reason why there is no eBPF for this process.
func HavePrograms() error {
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type:         ebpf.SchedCLS,
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
		License:      "Dual BSD/GPL",
	})
	if err != nil {
		return newLoadError(err)
	}
	_, err = btf.LoadKernelSpec()
	return errors.Join(supported("types of the kernel", err), prog.Close())
}

// HaveRedirectPeer returns nil, or an error that is [ErrNotSupported] where the
// kernel has no bpf_redirect_peer.
func HaveRedirectPeer() error {
	return supported("bpf_redirect_peer", features.HaveProgramHelper(ebpf.SchedCLS, asm.FnRedirectPeer))
}

// HaveConntrack returns nil, or an error that is [ErrNotSupported] where
// programs cannot look up conntrack.
func HaveConntrack() error {
	spec, err := bpf.LoadZipline()
	if err != nil {
		return err
	}
	askForConntrack()
	return supported("bpf_skb_ct_lookup and bpf_ct_change_timeout", haveConntrack(spec))
}

// HaveTCX returns nil, or an error that is [ErrNotSupported] where the kernel
// has no TCX. It asks the loopback device of the calling thread's namespace.
func HaveTCX() error {
	const loopback = 1
	_, err := queryTCX(loopback, ebpf.AttachTCXIngress)
	return supported("tcx", err)
}

// HaveBPFFS makes and removes a directory where pins go. Returns a [BPFFSError].
func (s Site) HaveBPFFS() error {
	if err := s.mountBPFFS(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(s.bpffs(), "zipline-probe-")
	if err == nil {
		err = os.Remove(dir)
	}
	if err != nil {
		return &BPFFSError{Path: s.bpffs(), Err: err}
	}
	return nil
}

func supported(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errNoTCX), errors.Is(err, ebpf.ErrNotSupported):
		return fmt.Errorf("%s: %w: %w", what, ErrNotSupported, err)
	default:
		return fmt.Errorf("%s: %w", what, err)
	}
}
