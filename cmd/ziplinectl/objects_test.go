// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/testrig"
)

func TestProgramsAreWhatTheKernelHas(t *testing.T) {
	s := newStage(t, testrig.Options{})
	a, b := s.attach(config("net", "direct", 62)), s.attach(config("net", "direct", 62))
	var programs []programJSON
	s.ask(&programs, "programs")
	want := map[string][]placeJSON{
		"from_endpoint": {s.place(a.device, "ingress"), s.place(b.device, "ingress")},
		"from_uplink":   {s.place(testrig.Uplink, "ingress")},
		"to_device":     {s.place(testrig.Uplink, "egress"), s.place(a.device, "egress"), s.place(b.device, "egress")},
	}
	for _, p := range programs {
		is := s.bpftool(p.ID)
		if p.Name != is.Name || p.Tag != is.Tag || p.JITBytes != is.JIT || p.Bytes != is.Bytes || p.Runs != is.Runs || !p.Current {
			t.Errorf("%+v; bpftool says %+v", p, is)
		}
		slices.Sort(is.Maps)
		if !slices.Equal(p.Maps, is.Maps) || p.Instructions == 0 {
			t.Errorf("%s uses maps %v, bpftool says %v; %d instructions", p.Name, p.Maps, is.Maps, p.Instructions)
		}
		loaded, err := time.Parse(time.RFC3339, p.LoadedAt)
		if off := loaded.Unix() - is.Loaded; err != nil || off < -1 || off > 1 {
			t.Errorf("%s was loaded at %s, bpftool says %d", p.Name, p.LoadedAt, is.Loaded)
		}
		places := want[p.Name]
		delete(want, p.Name)
		for _, at := range p.Places {
			if !slices.Contains(places, at) || !slices.Contains(s.attached(at.Index), p.ID) {
				t.Errorf("%s is not at %+v", p.Name, at)
			}
		}
		if len(p.Places) != len(places) {
			t.Errorf("%s is at %+v, want %+v", p.Name, p.Places, places)
		}
	}
	if len(want) > 0 {
		t.Errorf("not listed: %v", want)
	}
}

func (s *stage) place(device, direction string) placeJSON {
	return placeJSON{device, s.link(&s.Node.Namespace, device).Index, "tcx", direction}
}

func TestProgramsTellTheirRunsWhileStatisticsAreOn(t *testing.T) {
	s := newStage(t, testrig.Options{})
	a, b := s.attach(config("net", "direct", 62)), s.attach(config("net", "direct", 62))
	// For this moment only: it makes every program on the machine a little slower.
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		t.Fatal(err)
	}
	err = a.Ping(b.v4)
	if closeErr := stats.Close(); err != nil || closeErr != nil {
		t.Fatal(err, closeErr)
	}
	var programs []programJSON
	s.ask(&programs, "programs")
	for _, p := range programs {
		is := s.bpftool(p.ID)
		if p.Runs != is.Runs || p.RunTimeNs != is.TimeNs || p.Runs == 0 != (p.Name == "from_uplink") {
			t.Errorf("%s: %d runs, %d ns; bpftool says %d, %d", p.Name, p.Runs, p.RunTimeNs, is.Runs, is.TimeNs)
		}
	}
}

func TestMapsAreWhatTheKernelHas(t *testing.T) {
	s := newStage(t, testrig.Options{})
	for range 3 {
		s.attach(config("net", "direct", 62))
	}
	var maps []mapJSON
	s.ask(&maps, "maps")
	want := map[string]uint32{"endpoints": 6, "devices": 3, "uplinks": 1, "networks": 1}
	var names []string
	for _, m := range maps {
		names = append(names, m.Name)
		var is struct {
			Name  string `json:"name"`
			Type  string `json:"type"`
			Key   uint32 `json:"bytes_key"`
			Value uint32 `json:"bytes_value"`
			Max   uint32 `json:"max_entries"`
			Bytes uint64 `json:"bytes_memlock"`
		}
		id := strconv.Itoa(int(m.ID))
		s.kernel(&is, "bpftool", "-j", "map", "show", "id", id)
		if m.Name != is.Name || m.Type != is.Type || m.KeyBytes != is.Key || m.ValueBytes != is.Value || m.MaxEntries != is.Max || m.Bytes != is.Bytes {
			t.Errorf("%+v; bpftool says %+v", m, is)
		}
		if strings.HasSuffix(m.Type, "array") {
			if m.Entries != m.MaxEntries || m.Pressure != nil {
				t.Errorf("an array is always full, and never under pressure: %+v", m)
			}
			continue
		}
		var dump []any
		s.kernel(&dump, "bpftool", "-j", "map", "dump", "id", id)
		if int(m.Entries) != len(dump) || m.Entries != want[m.Name] || *m.Pressure != float64(m.Entries)/float64(m.MaxEntries) {
			t.Errorf("%s has %d entries, bpftool dumps %d, want %d; pressure %v", m.Name, m.Entries, len(dump), want[m.Name], *m.Pressure)
		}
	}
	names = append(names, "from_endpoint", "from_uplink", "to_device")
	slices.Sort(names)
	v, _ := s.status()
	if pinned := strings.Fields(s.Node.MustRun(t, "ls", v.Pins)); !slices.Equal(names, pinned) {
		t.Errorf("maps and programs %q, pinned are %q", names, pinned)
	}
}

func TestAFreshNodeHasNothing(t *testing.T) {
	s := newStage(t, testrig.Options{})
	for _, command := range []string{"networks", "endpoints", "leases", "programs", "maps"} {
		code, out, errs := s.run(command, "-o", "json")
		if code != exitOK || out != "[]\n" || errs != "" {
			t.Errorf("%s: exit code %d, stdout %q, stderr %q", command, code, out, errs)
		}
		if _, out, _ := s.run(command); out == "" {
			t.Errorf("%s has no heading where there is nothing", command)
		}
	}
}
