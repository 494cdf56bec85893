// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/zipline-cni/zipline/datapath"
	"github.com/zipline-cni/zipline/loader"
)

type mapJSON struct {
	ID         uint32   `json:"id" doc:"the kernel's id"`
	Name       string   `json:"name" doc:"name of the map"`
	Type       string   `json:"type" doc:"kind of map, in bpftool's words"`
	KeyBytes   uint32   `json:"keyBytes" doc:"size of a key"`
	ValueBytes uint32   `json:"valueBytes" doc:"size of a value (of one CPU's, in a per-CPU map)"`
	Entries    uint32   `json:"entries" doc:"number of entries; an array has all from the start"`
	MaxEntries uint32   `json:"maxEntries" doc:"how many there can be"`
	Pressure   *float64 `json:"pressure" doc:"entries / maxEntries; null for an array, which cannot fill up"`
	Bytes      uint64   `json:"bytes" doc:"memory that it is accounted with (exact from Linux 6.4 on)"`
}

func (a *app) mapsCommand() *cobra.Command {
	return describes([]mapJSON{}, &cobra.Command{
		Use:   "maps",
		Short: "List zipline's eBPF maps, how full they are and what memory they take",
		Example: `  ziplinectl maps
  ziplinectl maps -o json`,
		Annotations: map[string]string{needs: needsRoot},
		RunE: func(*cobra.Command, []string) error {
			maps, err := readMaps()
			if err != nil {
				return err
			}
			return a.print(maps, func(g *grid) { mapRows(g, maps) })
		},
	})
}

func mapRows(g *grid, maps []mapJSON) {
	g.heading("ID", "NAME", "TYPE", "ENTRIES", "MAX", "PRESSURE", "MEMORY", "KEY", "VALUE")
	for _, m := range maps {
		pressure := ""
		if m.Pressure != nil {
			pressure = fmt.Sprintf("%.1f%%", 100**m.Pressure)
		}
		g.row(number(m.ID), m.Name, m.Type, number(m.Entries), number(m.MaxEntries), pressure,
			memory(m.Bytes), number(m.KeyBytes), number(m.ValueBytes))
	}
}

func readMaps() (_ []mapJSON, err error) {
	maps := []mapJSON{}
	endpoints, err := datapath.Endpoints()
	if err != nil {
		return nil, err
	}
	node, err := datapath.FindNode(endpoints)
	if node == nil || err != nil {
		return maps, err
	}
	defer func() { err = errors.Join(err, node.Close()) }()
	list, err := node.Maps()
	if err != nil {
		return nil, err
	}
	for i := range list {
		maps = append(maps, mapOf(&list[i]))
	}
	return maps, nil
}

func mapOf(m *loader.MapStatus) mapJSON {
	v := mapJSON{
		ID: m.ID, Name: m.Name, Type: m.Type, KeyBytes: m.KeyBytes, ValueBytes: m.ValueBytes,
		Entries: m.Entries, MaxEntries: m.MaxEntries, Bytes: m.Bytes,
	}
	if !m.Array {
		pressure := m.Pressure()
		v.Pressure = &pressure
	}
	return v
}
