// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/zipline-cni/zipline/loader/prog"
)

// progShowJSON is a loaded program. Runs and RunTimeNs count while the kernel's
// statistics are on; with --stats they are of that time.
type progShowJSON struct {
	ProgramID    uint32     `json:"programId" doc:"the kernel's id of the program"`
	Program      string     `json:"program" doc:"its name, as much as the kernel keeps"`
	Type         string     `json:"type" doc:"its type"`
	Tag          string     `json:"tag" doc:"the kernel's hash of its instructions"`
	LoadedAt     string     `json:"loadedAt" doc:"when it was loaded (RFC 3339, UTC)"`
	UserID       uint32     `json:"userId" doc:"the user who loaded it"`
	Maps         []uint32   `json:"maps" doc:"the kernel's ids of its maps"`
	JITBytes     uint32     `json:"jitBytes" doc:"length of its machine code, 0 where it is interpreted"`
	Statistics   bool       `json:"statistics" doc:"whether the kernel's statistics were on before"`
	Runs         uint64     `json:"runs" doc:"how often it ran while statistics were on; with --stats, during that time"`
	RunTimeNs    int64      `json:"runTimeNs" doc:"how long it ran in these"`
	AttachedTo   []progJSON `json:"attachedTo" doc:"where it is attached in this network namespace"`
	Instructions []string   `json:"instructions" doc:"as the kernel runs them"`
	VerifierLog  []string   `json:"verifierLog" doc:"with --log: what the verifier says"`
}

func (a *app) progShowCommand() *cobra.Command {
	var stats time.Duration
	var log, name string
	c := describes(progShowJSON{}, &cobra.Command{
		Use:   "show ID|NAME",
		Short: "Show a loaded program: its instructions, run count and time",
		Long: `show prints what the kernel tells of a program: where it is attached, its maps,
its instructions, and how often and how long it ran while the kernel's statistics
were on. --stats switches them on while it runs and counts that time alone; on a
machine with much traffic every program then costs a little more.

The kernel keeps no verifier log: --log FILE.o has the verifier look at the program
again, from its object file, without attaching it.`,
		Example: `  ziplinectl prog show from_endpoint --stats=5s
  ziplinectl prog show count --log count.o`,
		Args:        cobra.ExactArgs(1),
		Annotations: map[string]string{needs: needsRoot},
		RunE: func(c *cobra.Command, args []string) error {
			d, err := prog.Show(args[0])
			if err != nil {
				return err
			}
			if stats > 0 {
				if err := d.Measure(c.Context(), stats); err != nil {
					return err
				}
			}
			row := progShowRow(d)
			if log != "" {
				if name == "" {
					name = d.Name
				}
				text, err := prog.Object{File: log, Program: name}.Verify()
				if err != nil {
					return err
				}
				row.VerifierLog = strings.Split(strings.TrimSpace(text), "\n")
			}
			return a.print(row, func(g *grid) { progShowTable(g, row) })
		},
	})
	c.Flags().DurationVar(&stats, "stats", 0, "measure for so long; 1s where no time is given")
	c.Flags().Lookup("stats").NoOptDefVal = "1s"
	c.Flags().StringVar(&log, "log", "", "object file to have verified again")
	c.Flags().StringVar(&name, "program", "", "name of the program in that file, where it is longer than the kernel keeps")
	return c
}

func progShowRow(d *prog.Details) progShowJSON {
	row := progShowJSON{
		ProgramID: d.ID, Program: d.Name, Type: d.Type, Tag: d.Tag, LoadedAt: timestamp(d.Loaded),
		UserID: d.UserID, Maps: append([]uint32{}, d.MapIDs...), JITBytes: d.JitedBytes, Statistics: d.StatsEnabled,
		Runs: d.RunCount, RunTimeNs: d.RunTime.Nanoseconds(),
		AttachedTo: []progJSON{}, Instructions: append([]string{}, d.Instructions...), VerifierLog: []string{},
	}
	for _, p := range d.AttachedTo {
		row.AttachedTo = append(row.AttachedTo, progRow(p))
	}
	return row
}

func progShowTable(g *grid, p progShowJSON) {
	g.heading("FIELD", "VALUE")
	g.row("program", fmt.Sprintf("%s, id %d, %s, tag %s", p.Program, p.ProgramID, p.Type, p.Tag))
	g.row("loaded", fmt.Sprintf("%s by user %d", p.LoadedAt, p.UserID))
	for _, at := range p.AttachedTo {
		g.row("attached", fmt.Sprintf("%s %s by %s, place %d", at.Device, at.Direction, at.Hook, at.Position))
	}
	g.row("maps", numbers(p.Maps))
	g.row("machine code", fmt.Sprintf("%d bytes", p.JITBytes))
	switch {
	case p.Runs > 0:
		g.row("runs", fmt.Sprintf("%d, %d ns each", p.Runs, uint64(p.RunTimeNs)/p.Runs))
	case p.Statistics:
		g.row("runs", "0")
	default:
		g.row("runs", "none counted: the kernel's statistics are off (--stats)")
	}
	for _, line := range p.Instructions {
		g.row("instruction", strings.TrimSpace(line))
	}
	for _, line := range p.VerifierLog {
		g.row("verifier", line)
	}
}
