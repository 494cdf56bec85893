// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/zipline-cni/zipline/bpf/internal/coverage"
	"github.com/zipline-cni/zipline/internal/testutil"
)

// neverRun are lines that no test of this package can reach, and onlyOneWay are
// conditions that always come out the same; by file and text, with the reason.
var (
	neverRun   = map[string]string{}
	onlyOneWay = map[string]string{
		"lib/arp.h: if (bpf_skb_store_bytes(skb, 0, frame, sizeof(*frame), 0))": "as many bytes were read just before",
		"lib/nd.h: if (bpf_skb_change_tail(skb, ND_ADVERT_LEN, 0) ||":           "fails without memory only",
		"lib/local.h: if ((void *)(eth + 1) > (void *)(long)skb->data_end)":     "the kernel has pulled the Ethernet header",
		"lib/count.h: if (counter) {":                                           "an array has all its rows",
		"lib/count.h: if (!path)":                                               "an array has all its rows",

		"lib/port.h: if (!table)": "an array has all its rows",

		"lib/packet.h: if (!ports)": "reached with ports only: without them packet_header goes on behind it",
		"lib/packet.h: if (!tcp)":   "the same",

		"lib/conntrack.h: return ext && ext->offset[NF_CT_EXT_HELPER];": "entries made by netlink always have extensions",
		"lib/conntrack.h: if (status & IPS_OFFLOAD)":                    "only a flowtable sets it, which not every kernel has",

		"lib/rewrite.h: if (!uplink && !bpf_l4_csum_replace(skb, check, 0, difference, flags))":                                   "succeeds only on a kernel that does not know BPF_F_IPV6",
		"lib/rewrite.h: if (bpf_l4_csum_replace(skb, check, old, new, flags | sizeof(old)) || rewrite_ports(skb, pkt, flow, v4))": "cannot fail where the first one did not",
		"lib/rewrite.h: if ((void *)(ports + 1) > (void *)(long)skb->data_end)":                                                   "the helper before it made them linear",
		"lib/answer.h: return !(sequence & 1) && answer->sequence == sequence && question_equal(&answer->question, question);":    "takes a real-time kernel, and two packets at one place on one CPU",
		"lib/answer.h: if (sequence & 1)":           "likewise",
		"lib/forward.h: if (opts.error != -ENOENT)": "the kernel has nothing else to complain about",
		"lib/answer.h: if (!answer)":                "the index is that of an entry",
		"lib/rewrite.h: if ((void *)(eth + 1) + (v4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr)) > end)": "the second time: the headers were linear before",
	}
)

// TestCoverage runs the tests of this package once more, with programs that
// note which of their lines ran, and fails when there is a line that did not,
// or a condition that always went the same way. With -v it prints the whole
// report. Tests that draw their packets stay out: what they reach is chance.
func TestCoverage(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.RequireKernel(t, "conntrack functions", haveConntrack())
	if ok, err := mendsIPv6(); err != nil || !ok {
		testutil.RequireKernel(t, "BPF_F_IPV6 (6.16), without which other lines run", errors.Join(err, ebpf.ErrNotSupported))
	}
	file := filepath.Join(t.TempDir(), "ran")
	cmd := exec.Command(os.Args[0], "-test.skip", "^Test(Coverage|Random.*)$", "-coverage.ran", file)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("run the tests with probes: %v\n%s", err, out)
	}
	ran, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	spec, err := LoadZipline()
	if err != nil {
		t.Fatal(err)
	}
	probes, err := coverage.Instrument(spec)
	if err != nil {
		t.Fatal(err)
	}
	report := coverage.NewReport(probes, ran, func(program string) bool { return program != ZiplineProgProbeConntrack })
	t.Logf("\n%s", report)
	wantExcuses(t, "never ran", report.Missed, neverRun)
	wantExcuses(t, "only one way", report.Halves, onlyOneWay)
}

// byChance are conditions on whether a tick passes between two packets, inlined in
// parts: what each must do has tests of its own (answer_test.go, turn_test.go).
// And what takes a CPU that is stopped for some ticks at this very place, as an
// emulated one may be.
var byChance = []string{
	"lib/admission.h: bpf_ct_change_timeout(ct, (__u64)lifetime * 1000 / tick_hz);",
	"lib/admission.h: if (((ct->timeout ^ expiry) >> ADMITTED_SHIFT) & ADMIT_DIRECTIONS) {",
	"lib/flow.h: if (!answer_known(question, flow, sizeof(*flow)))",
	"lib/carry.h: if (answer_known(question, way, sizeof(*way)))",
	"lib/arrival.h: if (answer_known(&back, NULL, 0))",
	"lib/forward.h: if (!address_equal(&pkt->saddr, &flow->saddr, v4) && answer_known(&question, &way, sizeof(way)))",
}

// wantExcuses checks that the lines are those that are excused, and no fewer.
func wantExcuses(t *testing.T, what string, lines []coverage.Line, excuses map[string]string) {
	t.Helper()
	met := map[string]bool{}
	for _, line := range lines {
		if strings.HasPrefix(line.Text, "if (kernel_has(") {
			continue // decided when the program is loaded
		}
		key := line.File + ": " + line.Text
		if slices.Contains(byChance, key) {
			continue
		}
		if met[key] = excuses[key] != ""; !met[key] {
			t.Errorf("%s, with no reason why: %s", what, line)
		}
	}
	for key := range excuses {
		if !met[key] {
			t.Errorf("%q is excused, but covered or gone", key)
		}
	}
}

var ranFile = flag.String("coverage.ran", "", "put probes into the programs and write to this file which of them ran")

// TestMain writes what ran when it is asked for by -coverage.ran.
func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	if *ranFile != "" && code == 0 {
		if err := saveRan(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// ranMap is the map of all worlds' probes.
var ranMap struct {
	sync.Mutex
	*ebpf.Map
}

// loadObjects loads the programs, with probes where these are asked for.
func loadObjects(spec *ebpf.CollectionSpec, objs *ZiplineObjects) error {
	if *ranFile == "" {
		return spec.LoadAndAssign(objs, nil)
	}
	if _, err := coverage.Instrument(spec); err != nil {
		return err
	}
	ranMap.Lock()
	defer ranMap.Unlock()
	if ranMap.Map == nil {
		var err error
		if ranMap.Map, err = ebpf.NewMap(spec.Maps[coverage.MapName]); err != nil {
			return fmt.Errorf("create map of probes: %w", err)
		}
	}
	return spec.LoadAndAssign(objs, &ebpf.CollectionOptions{
		MapReplacements: map[string]*ebpf.Map{coverage.MapName: ranMap.Map},
	})
}

func saveRan() error {
	ran, err := ranMap.LookupBytes(uint32(0))
	if err != nil {
		return fmt.Errorf("read map of probes: %w", err)
	}
	return os.WriteFile(*ranFile, ran, 0o600)
}
