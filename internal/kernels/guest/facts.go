// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/bpf"
	"github.com/zipline-cni/zipline/internal/kernels/plan"
	"github.com/zipline-cni/zipline/loader"
)

// sayFacts says what this kernel has, before any test has loaded a module.
func sayFacts() {
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	fact("release", strings.TrimSpace(string(release)), err)
	report := loader.Probe()
	fact("tier", string(report.Tier()), nil)
	for _, c := range []struct {
		name string
		err  error
	}{
		{"programs", report.Programs}, {"bpffs", report.BPFFS}, {"redirect_peer", report.RedirectPeer},
		{"conntrack", report.Conntrack}, {"tcx", report.TCX},
	} {
		if c.err != nil {
			fact("no "+c.name, strings.ReplaceAll(c.err.Error(), "\n", "; "), nil)
		}
	}
	sayPrograms(report.Conntrack == nil)
}

// processed is how the verifier's log ends.
var processed = regexp.MustCompile(`processed (\d+) insns`)

// sayPrograms says how many instructions the verifier looked at for each
// program, as the loader loads them: kernels before 5.16 tell it in the log only.
func sayPrograms(conntrack bool) {
	spec, err := bpf.LoadZipline()
	if err == nil {
		err = errors.Join(
			spec.Variables[bpf.ZiplineVarHaveConntrack].Set(conntrack),
			spec.Variables[bpf.ZiplineVarTickHz].Set(uint32(250)),
			// Kernels before 5.11 charge maps to this limit. Package rlimit
			// would read /proc before main has mounted it.
			unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}))
	}
	if err != nil {
		fact("verified", "", err)
		return
	}
	if !conntrack {
		delete(spec.Programs, bpf.ZiplineProgProbeConntrack)
	}
	for _, m := range spec.Maps {
		m.Pinning = ebpf.PinNone
	}
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{
		Programs: ebpf.ProgramOptions{LogLevel: ebpf.LogLevelStats},
	})
	if err != nil {
		fact("verified", "", err)
		return
	}
	defer coll.Close()
	for _, name := range slices.Sorted(maps.Keys(coll.Programs)) {
		count := "unknown"
		if found := processed.FindStringSubmatch(coll.Programs[name].VerifierLog); found != nil {
			count = found[1]
		}
		fact("verified "+name, count, nil)
	}
}

// fact says one thing in a line.
func fact(name, value string, err error) {
	if err != nil {
		value = "error: " + strings.ReplaceAll(err.Error(), "\n", "; ")
		if verifier := (*ebpf.VerifierError)(nil); errors.As(err, &verifier) {
			_, _ = fmt.Printf("%+v\n", verifier)
		}
	}
	_, _ = fmt.Printf("%s %s %s: %s\n", plan.Mark, plan.Fact, name, value)
}
