// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/loader"
)

var ebpfChecks = []Check{
	{"programs", topicEBPF, "the kernel loads a tc program", "it does not: no eBPF at all, tier kernel", checkPrograms},
	{"jit", topicEBPF, "programs are compiled, not interpreted", "interpreted: slower than the stack", checkJIT},
	{"redirect-peer", topicEBPF, "bpf_redirect_peer", "missing: tier kernel", checkRedirectPeer},
	{"conntrack-functions", topicEBPF, "programs can look up conntrack", "they cannot: tier direct", checkConntrackFunctions},
	{"btf", topicEBPF, "type information of the kernel", "missing: the programs cannot be loaded", checkBTF},
	{"btf-conntrack", topicEBPF, "type information of nf_conntrack, where it is a module", "missing: programs cannot look up conntrack", checkModuleBTF},
	{"tcx", topicEBPF, "the TCX hook", "missing: clsact serves (info)", checkTCX},
	{"memlock", topicEBPF, "RLIMIT_MEMLOCK, where maps count against it", "too small, and this process cannot raise it", checkMemlock},
	{"unprivileged-bpf", topicEBPF, "who else may load programs", "every user (info)", checkUnprivileged},
}

// wanting is the finding of a trial: nil, not tried, or what is missing.
func wanting(err error, works string, bad Finding) []Finding {
	switch {
	case err == nil:
		return ok("%s", works)
	case errors.Is(err, errUnprivileged):
		return skipped(err)
	}
	bad.Found = oneLine(err)
	return []Finding{bad}
}

func checkPrograms(n *node) []Finding {
	bad := Finding{Level: Warning, Means: "the kernel forwards everything (tier kernel)", Advice: "use a kernel with CONFIG_BPF_SYSCALL, CONFIG_NET_CLS_BPF and CONFIG_DEBUG_INFO_BTF"}
	err := n.programs()
	if errors.Is(err, loader.ErrNotPermitted) {
		bad.Advice = "allow the bpf system call to the container runtime: its seccomp profile, its security module"
	}
	findings := wanting(err, "the kernel loads tc programs", bad)
	if mode := lockdown(); err != nil && mode != "none" && mode != "" {
		findings[0].Found += "; lockdown is " + mode
	}
	return findings
}

// lockdown returns the mode that is chosen of "[none] integrity confidentiality".
func lockdown() string {
	data, _ := os.ReadFile("/sys/kernel/security/lockdown") // where there is none there is no lockdown
	_, rest, _ := strings.Cut(string(data), "[")
	mode, _, _ := strings.Cut(rest, "]")
	return mode
}

func checkJIT(n *node) []Finding {
	if err := n.programs(); err != nil {
		return skipped(err)
	}
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SchedCLS, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		return skipped(err)
	}
	defer func() { _ = prog.Close() }() // a trial
	info, err := prog.Info()
	if err != nil {
		return skipped(err)
	}
	size, err := info.JitedSize()
	if err != nil {
		return skipped(fmt.Errorf("the kernel does not tell (kernel.kptr_restrict): %w", err))
	}
	if size == 0 {
		return []Finding{{
			Level: Warning, Found: "programs are interpreted",
			Means: "what eBPF carries costs more than it saves", Mend: setSysctl("net/core/bpf_jit_enable", "1"),
		}}
	}
	return ok("programs are compiled")
}

func checkRedirectPeer(n *node) []Finding {
	return wanting(n.peer(), "bpf_redirect_peer is there", Finding{
		Level: Warning, Means: "the kernel forwards everything (tier kernel)", Advice: "use Linux 5.10 or newer",
	})
}

func checkConntrackFunctions(n *node) []Finding {
	return wanting(n.conntrack(), "programs can look up conntrack", Finding{
		Level: Warning, Means: "no flow is carried but between neighbours in forwarding direct (tier direct)",
		Advice: "use Linux 6.0 or newer with CONFIG_DEBUG_INFO_BTF, CONFIG_DEBUG_INFO_BTF_MODULES and nf_conntrack; see btf and btf-conntrack",
	})
}

func checkTCX(n *node) []Finding {
	return wanting(n.tcx(), "programs are attached by TCX", Finding{
		Level: Info, Means: "programs are attached by clsact, at priority 31340: filters with a lower number run before",
	})
}

func checkBTF(*node) []Finding {
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
		return []Finding{{
			Level: Warning, Found: oneLine(err), Means: "the programs cannot be fitted to the kernel, which forwards everything (tier kernel)",
			Advice: "use a kernel with CONFIG_DEBUG_INFO_BTF",
		}}
	}
	return ok("/sys/kernel/btf/vmlinux is there")
}

func checkModuleBTF(*node) []Finding {
	const module = "/sys/module/nf_conntrack"
	if _, err := os.Stat(module); err != nil {
		return ok("nf_conntrack is not loaded yet; the first ADD does it")
	}
	if _, err := os.Stat(module + "/initstate"); err != nil {
		return ok("nf_conntrack is part of the kernel")
	}
	if _, err := os.Stat("/sys/kernel/btf/nf_conntrack"); err != nil {
		return []Finding{{
			Level: Warning, Found: "nf_conntrack is a module without type information", Means: "programs cannot call its functions (tier direct)",
			Advice: "use a kernel with CONFIG_DEBUG_INFO_BTF_MODULES; a module built later needs the kernel's vmlinux at hand (dkms)",
		}}
	}
	return ok("nf_conntrack is a module with type information")
}

// mapBytes is about what the maps of a node need.
const mapBytes = 16 << 20

// checkMemlock makes a map that is larger than the limit, where that can be
// known to matter: the limit counts until Linux 5.11, the memory cgroup since.
func checkMemlock(n *node) []Finding {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		return skipped(fmt.Errorf("read RLIMIT_MEMLOCK: %w", err))
	}
	switch {
	case limit.Cur >= mapBytes:
		return ok("the limit is %s", bytesText(limit.Cur))
	case n.programs() != nil:
		return skipped(fmt.Errorf("the limit is %s: %w", bytesText(limit.Cur), n.programs()))
	}
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4096, MaxEntries: uint32(limit.Cur/4096) + 1})
	if err == nil {
		_ = m.Close() // a trial
		return ok("the limit is %s, and maps do not count against it", bytesText(limit.Cur))
	}
	if limit.Max == unix.RLIM_INFINITY {
		return ok("the limit is %s, and an ADD raises it", bytesText(limit.Cur))
	}
	return []Finding{{
		Level: Warning, Found: fmt.Sprintf("maps count against a limit of %s", bytesText(limit.Cur)),
		Means: "an ADD with this limit cannot load the programs, unless it may raise it (CAP_SYS_RESOURCE)",
		Mend: `mkdir -p /etc/systemd/system/containerd.service.d && printf '[Service]\nLimitMEMLOCK=infinity\n' > ` +
			"/etc/systemd/system/containerd.service.d/zipline.conf && systemctl daemon-reload && systemctl restart containerd",
	}}
}

func bytesText(n uint64) string {
	if n == unix.RLIM_INFINITY {
		return "unlimited"
	}
	return fmt.Sprintf("%d KiB", n>>10)
}

func checkUnprivileged(n *node) []Finding {
	value, there := n.sysctl("kernel/unprivileged_bpf_disabled")
	if there && value == "0" {
		return []Finding{{
			Level: Info, Found: "kernel.unprivileged_bpf_disabled is 0", Means: "every user may load socket programs; zipline does not need that",
			Mend: setSysctl("kernel/unprivileged_bpf_disabled", "2"),
		}}
	}
	return ok("only privileged processes may load programs")
}
