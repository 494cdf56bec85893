// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/zipline-cni/zipline/datapath"
	"github.com/zipline-cni/zipline/loader"
)

// Level says how bad a finding is.
type Level string

// The levels. Only a problem makes the command's exit code 3.
const (
	// OK: as it should be.
	OK Level = "ok"
	// Info: good to know; nothing need be done.
	Info Level = "info"
	// Warning: works, but slower, for less traffic than it could, or not for long.
	Warning Level = "warning"
	// Problem: packets are lost, an ADD or a STATUS fails.
	Problem Level = "problem"
	// Skipped: this process could not look.
	Skipped Level = "skipped"
)

// Topics, in the order of the table.
const (
	topicEBPF      = "eBPF"
	topicBPFFS     = "bpffs"
	topicNetfilter = "netfilter"
	topicRouting   = "routing"
	topicDevices   = "devices"
	topicServices  = "services"
	topicCNI       = "CNI"
	topicSystem    = "system"
	topicOutcome   = "outcome"
)

// Finding is what a check says about one thing. The field names are an interface
// of "ziplinectl doctor -o json"; docs/cli.md prints their doc tags.
type Finding struct {
	Check   string `json:"check" doc:"id of the check; it never changes"`
	Topic   string `json:"topic" doc:"groups checks for people"`
	Level   Level  `json:"level" doc:"ok, info, warning, problem or skipped"`
	Subject string `json:"subject" doc:"the device, file or network that it is about; empty: the node"`
	Found   string `json:"found" doc:"what there is"`
	Means   string `json:"means" doc:"what follows for zipline; empty for nothing"`
	Mend    string `json:"mend" doc:"a command to paste into a shell; empty where nothing need be done, or none can do it"`
	Advice  string `json:"advice" doc:"what to do where that is no command"`
}

// Check is one thing to look at.
type Check struct {
	// ID is stable. Topic groups checks for people.
	ID, Topic string
	// Looks says in a line what is looked at, and Bad what is said to be bad.
	Looks, Bad string

	run func(*node) []Finding
}

// Network is what the checks want to know of a configuration of type zipline.
type Network struct {
	Name       string
	Forwarding datapath.Forwarding
	BigTCP     datapath.BigTCP
	// Gateway says that ADD switches forwarding on.
	Gateway bool
	// MTU is 0 where the configuration leaves it to the node.
	MTU int
	// Uplinks are names and globs; none: the devices of the default routes.
	Uplinks []string
	// Subnets are those that addresses come from, as far as that is known.
	Subnets []netip.Prefix
	// DataDir has the leases; empty where another IPAM plugin keeps them.
	DataDir string
}

// Options say where to look.
type Options struct {
	// Root is put before the paths of the node's files (/etc, /run, /usr, /var,
	// and /proc of other processes), for a container that has them elsewhere.
	Root string
	// ConfigDir is where the runtime looks for networks. Optional: /etc/cni/net.d.
	ConfigDir string
	// Parse checks a network configuration as ADD does and tells what is in it.
	Parse func(config []byte) (Network, error)

	// sysctls are values that tests have in place of the kernel's, by path below
	// /proc/sys.
	sysctls map[string]string
}

// Report is what [Run] found.
type Report struct {
	Tier       string    `json:"tier" doc:"the best that the node can do; unknown where that could not be tried"`
	Forwarding []Word    `json:"forwarding" doc:"what each word of the configuration key gives here"`
	Findings   []Finding `json:"findings" doc:"in the order of the checks; a check has one or several"`
}

// Word is a value of the configuration key forwarding and what it gives.
type Word struct {
	Word  string `json:"word" doc:"the word"`
	Gives string `json:"gives" doc:"what it gives"`
}

// Checks lists the checks in the order of the table.
func Checks() []Check {
	return slices.Concat(ebpfChecks, bpffsChecks, netfilterChecks, routingChecks,
		deviceChecks, serviceChecks, cniChecks, systemChecks, outcomeChecks)
}

// Run runs the checks with these ids, or all. It fails only for an id that there
// is not: a check that cannot look says so in its finding.
func Run(o Options, ids ...string) (*Report, error) {
	all := Checks()
	for _, id := range ids {
		if !slices.ContainsFunc(all, func(c Check) bool { return c.ID == id }) {
			return nil, fmt.Errorf("no check %q", id)
		}
	}
	n := newNode(o)
	r := &Report{Findings: []Finding{}}
	for _, c := range all {
		if len(ids) > 0 && !slices.Contains(ids, c.ID) {
			continue
		}
		findings := c.run(n)
		slices.SortStableFunc(findings, func(a, b Finding) int { return cmp.Compare(a.Subject, b.Subject) })
		for _, f := range findings {
			f.Check, f.Topic = c.ID, c.Topic
			r.Findings = append(r.Findings, f)
		}
	}
	r.Tier, r.Forwarding = n.outcome()
	return r, nil
}

// Worst returns the worst level of the report: a problem before a warning,
// before what was skipped, before the rest.
func (r *Report) Worst() Level {
	worst := OK
	for _, f := range r.Findings {
		if rank(f.Level) > rank(worst) {
			worst = f.Level
		}
	}
	return worst
}

func rank(l Level) int { return slices.Index([]Level{OK, Info, Skipped, Warning, Problem}, l) }

// ok is the finding of a check that has nothing to object to.
func ok(format string, args ...any) []Finding {
	return []Finding{{Level: OK, Found: fmt.Sprintf(format, args...)}}
}

// skipped is the finding of a check that could not look.
func skipped(err error) []Finding {
	return []Finding{{Level: Skipped, Found: "could not look: " + oneLine(err)}}
}

// orOK returns the findings, or that there is nothing to object to.
func orOK(findings []Finding, format string, args ...any) []Finding {
	if len(findings) == 0 {
		return ok(format, args...)
	}
	return findings
}

// forwardingWords are the values of the key, the default first.
var forwardingWords = []datapath.Forwarding{
	datapath.ForwardingAuto, datapath.ForwardingDirect, datapath.ForwardingTracked, datapath.ForwardingKernel,
}

// tierUnknown stands where the programs could not be tried.
const tierUnknown loader.Tier = "unknown"
