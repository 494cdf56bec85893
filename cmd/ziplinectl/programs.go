// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/zipline-cni/zipline/datapath"
)

type programJSON struct {
	ID           uint32      `json:"id" doc:"the kernel's id"`
	Name         string      `json:"name" doc:"from_endpoint, from_uplink or to_device"`
	Tag          string      `json:"tag" doc:"the kernel's hash of its instructions"`
	Current      bool        `json:"current" doc:"whether it is of the node's set; another is an older version that is still attached"`
	LoadedAt     string      `json:"loadedAt" doc:"when it was loaded (RFC 3339, UTC)"`
	Instructions uint32      `json:"instructions" doc:"how many the verifier looked at; 0 before Linux 5.16"`
	JITBytes     uint32      `json:"jitBytes" doc:"size of its machine code; 0 without JIT"`
	Bytes        uint64      `json:"bytes" doc:"memory that it is accounted with"`
	Runs         uint64      `json:"runs" doc:"how often it has run while statistics were on"`
	RunTimeNs    uint64      `json:"runTimeNs" doc:"how long altogether, in nanoseconds"`
	Statistics   bool        `json:"statistics" doc:"whether statistics are on now (sysctl kernel.bpf_stats_enabled)"`
	Maps         []uint32    `json:"maps" doc:"ids of the maps that it uses"`
	Places       []placeJSON `json:"places" doc:"where it is attached"`
}

type placeJSON struct {
	Device    string `json:"device" doc:"device of the node"`
	Index     int    `json:"index" doc:"its interface index"`
	Hook      string `json:"hook" doc:"tcx or clsact"`
	Direction string `json:"direction" doc:"ingress or egress, as seen from the device"`
}

func (a *app) programsCommand() *cobra.Command {
	return describes([]programJSON{}, &cobra.Command{
		Use:   "programs",
		Short: "List zipline's eBPF programs and where they are attached",
		Long: `List the programs of this node, and older versions that a device still has.
RUNS and NS/RUN need the kernel's statistics: sysctl -w kernel.bpf_stats_enabled=1
(each run of each program on the machine then costs some 20 ns more).`,
		Example: `  ziplinectl programs
  ziplinectl programs -o json`,
		Annotations: map[string]string{needs: needsRoot},
		RunE: func(*cobra.Command, []string) error {
			list, err := datapath.Programs()
			if err != nil {
				return err
			}
			programs := []programJSON{}
			for i := range list {
				programs = append(programs, programOf(&list[i]))
			}
			return a.print(programs, func(g *grid) { a.programRows(g, programs) })
		},
	})
}

func programOf(p *datapath.ProgramUse) programJSON {
	v := programJSON{
		ID: p.ID, Name: p.Name, Tag: p.Tag, Current: p.Current, LoadedAt: timestamp(p.LoadedAt),
		Instructions: p.Instructions, JITBytes: p.JITBytes, Bytes: p.Bytes,
		Runs: p.Runs, RunTimeNs: uint64(p.Runtime), Statistics: p.Counted,
		Maps: append([]uint32{}, p.Maps...), Places: []placeJSON{},
	}
	for _, at := range p.Places {
		v.Places = append(v.Places, placeJSON{at.Device, at.Index, at.Hook, at.Direction})
	}
	return v
}

func (a *app) programRows(g *grid, programs []programJSON) {
	head := []string{"ID", "NAME", "TAG", "LOADED", "ATTACHED", "RUNS", "NS/RUN", "MEMORY", "MAPS"}
	if a.wide() {
		head = append(head, "INSTRUCTIONS", "JIT", "PLACES")
	}
	g.heading(head...)
	for i := range programs {
		p := &programs[i]
		name := p.Name
		if !p.Current {
			name = g.bad(name + "(old)")
		}
		row := []string{
			number(p.ID), name, p.Tag, p.LoadedAt, devicesText(p.Places), "", "", memory(p.Bytes), numbers(p.Maps),
		}
		if p.Runs > 0 || p.Statistics {
			row[5] = number(p.Runs)
		}
		if p.Runs > 0 {
			row[6] = fmt.Sprint(p.RunTimeNs / p.Runs)
		}
		if a.wide() {
			row = append(row, number(p.Instructions), memory(uint64(p.JITBytes)), placesText(p.Places))
		}
		g.row(row...)
	}
}

// devicesText counts devices by place: "3 tcx/ingress".
func devicesText(places []placeJSON) string {
	counts := map[string]int{}
	var words []string
	for _, p := range places {
		if word := p.Hook + "/" + p.Direction; counts[word] == 0 {
			words = append(words, word)
		}
		counts[p.Hook+"/"+p.Direction]++
	}
	for i, word := range words {
		words[i] = fmt.Sprintf("%s:%d", word, counts[word])
	}
	return commas(words)
}

func placesText(places []placeJSON) string {
	words := make([]string, len(places))
	for i, p := range places {
		words[i] = p.Hook + "/" + p.Direction + ":" + p.Device
	}
	return commas(words)
}

func numbers(ids []uint32) string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(ids), " ", ","), "[]")
}
