// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/datapath"
	"github.com/zipline-cni/zipline/loader"
)

var systemChecks = []Check{
	{"rcu-expedited", topicSystem, "/sys/kernel/rcu_expedited", "left at 1, or cannot be set: each ADD holds the lock of all devices for some ticks (info)", checkExpedited},
}

var outcomeChecks = []Check{
	{"tier", topicOutcome, "the tier that follows, and what the configured networks ask for by name", "lower than conntrack; a problem where STATUS refuses", checkTier},
}

const (
	expeditedKnob = "/sys/kernel/rcu_expedited"
	expeditedNote = "/run/zipline/rcu"
)

// checkExpedited: the switch is 1 for moments during an ADD or DEL, whose lock on
// the note tells it from one that was left behind.
func checkExpedited(n *node) []Finding {
	value, there := n.expedited()
	// It is one for the machine: an ADD in another container holds another note.
	for range 10 {
		if !there || value == "0" {
			break
		}
		time.Sleep(5 * time.Millisecond)
		value, there = n.expedited()
	}
	switch {
	case !there:
		return ok("this kernel has no such switch, and needs none")
	case value == "0":
		return n.expeditable()
	}
	note, err := os.OpenFile(expeditedNote, os.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		defer func() { _ = note.Close() }() // and with it the lock
		if errors.Is(unix.Flock(int(note.Fd()), unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK) {
			return ok("set at this moment by an ADD or DEL")
		}
	}
	f := Finding{
		Level: Info, Found: "is 1, set by somebody else", Means: "all CPUs are interrupted more often",
		Mend: "echo 0 > " + expeditedKnob + "   # unless it was set on purpose (rcupdate.rcu_expedited)",
	}
	if content, err := os.ReadFile(expeditedNote); err == nil && len(content) > 0 {
		f.Level, f.Found = Warning, "is 1, left behind by an ADD or DEL that was killed"
		f.Mend = "echo 0 > " + expeditedKnob + "   # the next ADD or DEL does it too"
	}
	return []Finding{f}
}

func (n *node) expedited() (value string, there bool) {
	if fake, is := n.sysctls[expeditedKnob]; is {
		return fake, true
	}
	data, err := os.ReadFile(expeditedKnob)
	return strings.TrimSpace(string(data)), err == nil
}

func (n *node) expeditable() []Finding {
	err := unix.Access(expeditedKnob, unix.W_OK)
	switch {
	case err == nil:
		return ok("is 0, and ADD can set it for moments")
	case os.Geteuid() != 0:
		return skipped(errUnprivileged)
	}
	tick := unix.Timespec{}
	_ = unix.ClockGetres(unix.CLOCK_MONOTONIC_COARSE, &tick) // then it is 0
	wait := 3 * time.Duration(tick.Nano())
	return []Finding{{
		Level: Info, Found: fmt.Sprintf("cannot be set: %v", err),
		Means: fmt.Sprintf("each ADD and DEL holds the lock of all network devices for up to %v", wait.Round(time.Millisecond)),
		Mend:  "mount -o remount,rw /sys   # in the container that the runtime runs in",
	}}
}

// tier is that of the loader, found out without mounting a bpffs.
func (n *node) tier() loader.Tier {
	r := loader.Report{Programs: n.programs(), RedirectPeer: n.peer(), Conntrack: n.conntrack(), BPFFS: n.bpffs()}
	if errors.Is(r.Programs, errUnprivileged) {
		return tierUnknown
	}
	if errors.Is(r.BPFFS, errNotMounted) {
		r.BPFFS = nil // ADD mounts one
	}
	return r.Tier()
}

// outcome returns the tier and what each word gives in it (docs/architecture.md, "Tiers").
func (n *node) outcome() (tier string, words []Word) {
	t := n.tier()
	for _, word := range forwardingWords {
		words = append(words, Word{string(word), gives(t, word, n.wantsNetfilter())})
	}
	return string(t), words
}

// What a forwarding word can give.
const (
	givesStack   = "everything by the stack"
	givesDirect  = "neighbours by eBPF from the first packet, all other flows once established"
	givesTracked = "every flow by eBPF once established"
	givesShort   = "neighbours by eBPF, all else by the stack"
	givesUnknown = "unknown"
)

func gives(t loader.Tier, word datapath.Forwarding, netfilter bool) string {
	if word == datapath.ForwardingAuto {
		word = datapath.ForwardingDirect
		if netfilter || t == loader.TierDirect {
			word = datapath.ForwardingTracked
		}
	}
	switch {
	case word == datapath.ForwardingKernel || t == loader.TierKernel:
		return givesStack
	case t == tierUnknown:
		return givesUnknown
	case t == loader.TierConntrack && word == datapath.ForwardingDirect:
		return givesDirect
	case t == loader.TierConntrack:
		return givesTracked
	case word == datapath.ForwardingDirect:
		return givesShort
	}
	return givesStack
}

func checkTier(n *node) []Finding {
	t := n.tier()
	var findings []Finding
	switch t {
	case tierUnknown:
		return skipped(errUnprivileged)
	case loader.TierConntrack:
		findings = ok("conntrack: all that zipline has")
	case loader.TierDirect:
		findings = []Finding{{Level: Warning, Found: "direct: programs cannot look up conntrack", Means: "only forwarding direct carries anything: traffic between neighbours"}}
	default:
		findings = []Finding{{Level: Warning, Found: "kernel: no eBPF", Means: "everything works, by the stack, and slower"}}
	}
	configs, _ := n.configs()
	for _, c := range configs {
		refused := c.Forwarding == datapath.ForwardingTracked && t != loader.TierConntrack ||
			c.Forwarding == datapath.ForwardingDirect && t == loader.TierKernel
		if refused {
			findings = append(findings, Finding{
				Level: Problem, Subject: c.Name, Found: fmt.Sprintf("asks for forwarding %s, and the tier is %s", c.Forwarding, t),
				Means: "ADD warns and falls back, STATUS refuses (code 50)", Advice: `set "forwarding": "auto" in ` + c.file + ", or mend what is above",
			})
		}
	}
	return slices.Clip(findings)
}
