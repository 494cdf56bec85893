// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/zipline-cni/zipline/cni"
	"github.com/zipline-cni/zipline/datapath/doctor"
	"github.com/zipline-cni/zipline/ipam"
)

func (a *app) doctorCommand() *cobra.Command {
	options := doctor.Options{Parse: describeNetwork}
	var quiet bool
	c := describes(doctor.Report{}, &cobra.Command{
		Use:   "doctor [CHECK]...",
		Short: "Say what on this node zipline lacks, or is disturbed by, and how to mend it",
		Long: `doctor looks at everything that zipline stands on or gets along with, says what
it found, what that means and how to mend it (docs/doctor.md lists the checks).
What the kernel can do is tried, never told from its version. It changes nothing,
and needs root to try: without, it says what it could not look at.

The levels: ok; info: good to know; warning: works, but slower, for less traffic
than it could, or not for long; problem: packets are lost, an ADD or a STATUS
fails; skipped: could not look. The exit code is 3 where there is a problem.`,
		Example: "  ziplinectl doctor\n  ziplinectl doctor mtu rp-filter\n" +
			"  ziplinectl doctor -o json | jq '.findings[] | select(.level == \"problem\")'",
		Args: cobra.ArbitraryArgs,
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			var ids []string
			for _, c := range doctor.Checks() {
				ids = append(ids, c.ID+"\t"+c.Looks)
			}
			return ids, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, ids []string) error {
			runtime.LockOSThread() // the namespaces are the thread's
			defer runtime.UnlockOSThread()
			report, err := doctor.Run(options, ids...)
			if err != nil {
				return usageError{err}
			}
			if a.format == formatJSON {
				err = a.print(report, nil)
			} else {
				_, err = fmt.Fprint(a.out, a.consultation(report, quiet, len(ids) > 0))
			}
			if err == nil && report.Worst() == doctor.Problem {
				return errFindings
			}
			return err
		},
	})
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "leave out what is ok (table only)")
	c.Flags().StringVar(&options.ConfigDir, "config-dir", "/etc/cni/net.d", "where the runtime looks for networks")
	c.Flags().StringVar(&options.Root, "root", "", "where the node's files are, for a container that has them elsewhere")
	return c
}

// consultation is the report for people: by topic, a line for each finding and,
// below those that are not ok, what it means and how to mend it.
func (a *app) consultation(r *doctor.Report, quiet, some bool) string {
	g := &grid{color: a.terminal}
	var out strings.Builder
	wide, topic, counts := 0, "", map[doctor.Level]uint64{}
	for _, f := range r.Findings {
		wide = max(wide, len(f.Check))
	}
	for _, f := range r.Findings {
		counts[f.Level]++
		if quiet && f.Level == doctor.OK {
			continue
		}
		if f.Topic != topic {
			topic = f.Topic
			fmt.Fprintln(&out, topic)
		}
		found := f.Found
		if f.Subject != "" {
			found = f.Subject + ": " + found
		}
		level := fmt.Sprintf("%-7s", f.Level)
		switch f.Level {
		case doctor.OK:
			level = g.good(level)
		case doctor.Problem, doctor.Warning:
			level = g.bad(level)
		default:
			level = g.dim(level)
		}
		fmt.Fprintf(&out, "  %s  %-*s  %s\n", level, wide, f.Check, found)
		indent := strings.Repeat(" ", 2+7+2+wide+2)
		if f.Means != "" {
			fmt.Fprintf(&out, "%smeans: %s\n", indent, f.Means)
		}
		if mend := cmp.Or(f.Mend, f.Advice); mend != "" {
			fmt.Fprintf(&out, "%smend:  %s\n", indent, mend)
		}
	}
	if !some {
		fmt.Fprintf(&out, "tier %s\n", r.Tier)
		for _, w := range r.Forwarding {
			fmt.Fprintf(&out, "  forwarding %-9s%s\n", w.Word, w.Gives)
		}
	}
	fmt.Fprintf(&out, "%s, %s, %d not looked at\n", plural(counts[doctor.Problem], "problem"), plural(counts[doctor.Warning], "warning"), counts[doctor.Skipped])
	return out.String()
}

// describeNetwork checks a configuration as ADD does and tells what is in it.
func describeNetwork(config []byte) (doctor.Network, error) {
	c, err := cni.ParseConfig(config, "")
	if err != nil {
		return doctor.Network{}, err
	}
	n := doctor.Network{
		Name: c.Name, Forwarding: c.Forwarding, BigTCP: c.BigTCP, Gateway: c.IsGateway, MTU: c.MTU, Uplinks: c.Uplinks,
	}
	var conf struct {
		IPAM struct {
			DataDir   string `json:"dataDir"`
			InProcess *bool  `json:"inProcess"`
		} `json:"ipam"`
	}
	if err := json.Unmarshal(config, &conf); err != nil {
		return n, fmt.Errorf("read ipam: %w", err)
	}
	if c.IPAM.Type != "host-local" || conf.IPAM.InProcess != nil && !*conf.IPAM.InProcess {
		return n, nil // that plugin's own matter
	}
	pool, err := ipam.NewPool(config, "")
	if err != nil {
		return n, err
	}
	n.Subnets, n.DataDir = pool.Subnets(), cmp.Or(conf.IPAM.DataDir, ipam.DefaultDataDir)
	return n, nil
}
