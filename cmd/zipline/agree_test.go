// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/testrig"
	"github.com/zipline-cni/zipline/internal/testutil"
)

// What carries the bulk of a case's packets.
const (
	fastDirect  = "direct"  // eBPF; in tier direct without conntrack
	fastTracked = "tracked" // eBPF, as conntrack says
	fastNone    = "none"    // the stack
	fastBoth    = "direct or tracked"
	fastAny     = "" // not asked: a few packets, or several ways
	fastOfWay   = "as the way says"
)

// agreeCase is some traffic. All tiers have to show the same at every end.
type agreeCase struct {
	name string
	fast string
	// neighbours says that TCP and UDP of the case go between neighbours with no
	// translation: what tier direct may carry differently.
	neighbours bool
	// resets says that the case is about resets. In others a busy machine may send
	// one: a FIN that is repeated can meet a socket that is gone.
	resets bool
	// waits says that the case takes its time: it runs beside others that do.
	waits bool
	run   func(c *agreeRun)

	// Set by perWay: the flow whose DNAT rule is written before the cases run.
	way    way
	family string
}

// agreeCases are all of them.
func agreeCases() []agreeCase {
	return slices.Concat(flowCases(), sizeCases(), icmpCases(), pathMTUCases(), headerCases(), tcpCases(), longCases())
}

// difference is what a tier may show otherwise than the kernel.
type difference struct {
	tier   string
	reason string
	// listed is where docs/architecture.md says so.
	listed string
	// applies says whether a packet that an end received may be one of these.
	applies func(c agreeCase, end string, a testrig.Arrival) bool
	// change makes what the kernel shows to what the tier may show in its place.
	// Without it the packet may arrive on one of the two alone.
	change func(a testrig.Arrival, by int) testrig.Arrival
}

const sameSegment = "TTL and hop limit: unchanged between `direct` neighbours"

// differences are all that a container can notice.
var differences = []difference{
	{
		tier: "direct", reason: "neighbours are on one L2 segment, as on a bridge: there is no router to take one off",
		listed: sameSegment,
		applies: func(c agreeCase, _ string, a testrig.Arrival) bool {
			plain := a.Flags == "" || a.Flags == "df"
			return c.neighbours && plain && (a.Protocol == unix.IPPROTO_TCP || a.Protocol == unix.IPPROTO_UDP)
		},
		change: func(a testrig.Arrival, by int) testrig.Arrival { a.TTL += byte(by); return a },
	},
	{
		tier: "direct", reason: "an error quotes the packet as it arrived, with the TTL that it had there",
		listed: sameSegment,
		applies: func(c agreeCase, _ string, a testrig.Arrival) bool {
			return c.neighbours && (a.Quoted.Protocol == unix.IPPROTO_TCP || a.Quoted.Protocol == unix.IPPROTO_UDP)
		},
		change: func(a testrig.Arrival, by int) testrig.Arrival { a.Quoted.TTL += byte(by); return a },
	},
	wrongChecksums("direct"), wrongChecksums("tracked"),
}

// wrongChecksums is what a translated flow shows that brings a packet with a wrong
// checksum: conntrack drops it in the node, eBPF leaves that to the receiver.
func wrongChecksums(tier string) difference {
	return difference{
		tier: tier, reason: "a program does not sum up whole packets",
		listed: "A packet with a wrong TCP or UDP checksum, in a flow that is translated",
		applies: func(c agreeCase, _ string, a testrig.Arrival) bool {
			return !c.neighbours && a.Checksum == "bad"
		},
	}
}

// observation is what a case showed on a tier: lines about its ends.
type observation struct {
	notes    []string
	arrivals map[string]map[testrig.Arrival]testrig.Seen
}

// lines returns the observation as text.
func (o observation) lines() []string {
	lines := slices.Clone(o.notes)
	for end, seen := range o.arrivals {
		for a := range seen {
			lines = append(lines, fmt.Sprintf("%s received %s", end, a))
		}
	}
	slices.Sort(lines)
	return slices.Compact(lines)
}

// lacks returns what o has and other has not, as text. by is 1 where o is the
// first tier's and -1 where other is.
func (o observation) lacks(other observation, tier string, c agreeCase, by int, used map[int]int) []string {
	var lines []string
	for _, note := range o.notes {
		if !slices.Contains(other.notes, note) {
			lines = append(lines, note)
		}
	}
	for end, seen := range o.arrivals {
		for a := range seen {
			if a.Kind == "rst" && !c.resets {
				continue
			}
			if _, ok := other.arrivals[end][a]; !ok && !excused(other.arrivals[end], tier, c, end, a, by, used) {
				lines = append(lines, fmt.Sprintf("%s received %s", end, a))
			}
		}
	}
	slices.Sort(lines)
	return lines
}

// excused says whether one of the differences allows that this packet arrived on
// one tier alone.
func excused(there map[testrig.Arrival]testrig.Seen, tier string, c agreeCase, end string, a testrig.Arrival, by int, used map[int]int) bool {
	for i, d := range differences {
		if d.tier != tier || !d.applies(c, end, a) {
			continue
		}
		ok := d.change == nil
		if !ok {
			_, ok = there[d.change(a, by)]
		}
		if ok {
			used[i]++
			return true
		}
	}
	return false
}

// agreeRun is a case that runs on a tier.
type agreeRun struct {
	*agreeWorld
	t    *testing.T
	name string
	// port is the first of the case's own: its packets are known by them.
	port uint16

	// badAllowed says that the case sends wrong checksums itself.
	badAllowed bool
	failed     bool
	// lost counts datagrams that had to be repeated.
	lost int

	mu    sync.Mutex
	notes []string
}

// Ports of the cases, most of them below those that the kernel picks.
const (
	firstPort    = 10000
	portsPerCase = 64
)

// note adds a line to what the tiers have to agree about.
func (c *agreeRun) note(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.notes = append(c.notes, fmt.Sprintf(format, args...))
}

// TestTiersAgree sends the same traffic through each tier and compares what each
// end receives: addresses, ports, TTL, ToS, checksums, ICMP errors. What is sent
// is compared with what arrives by the case itself.
func TestTiersAgree(t *testing.T) {
	cases := agreeCases()
	shown := make([]map[string]observation, len(agreeTiers))
	t.Run("on", func(t *testing.T) {
		for i, v := range agreeTiers {
			t.Run(v.name, func(t *testing.T) {
				t.Parallel()
				shown[i] = showCases(t, v, cases)
			})
		}
	})
	used := map[int]int{}
	for i, v := range agreeTiers[1:] {
		t.Run(v.name+" agrees with "+agreeTiers[0].name, func(t *testing.T) {
			for _, c := range cases {
				want, got := shown[0][c.name], shown[i+1][c.name]
				if want.arrivals == nil || got.arrivals == nil {
					continue // not selected, or ended early and reported there
				}
				t.Run(c.name, func(t *testing.T) { compareTiers(t, v, c, want, got, used) })
			}
		})
	}
	checkDifferences(t, cases, shown[0], used)
}

// showCases runs the cases in one world: one after the other, and those that
// wait all at once.
func showCases(t *testing.T, v variant, cases []agreeCase) map[string]observation {
	t.Helper()
	w := newAgreeWorld(t, v)
	w.publish(t, cases)
	var mu sync.Mutex
	shown := map[string]observation{}
	show := func(t *testing.T, i int) {
		run := &agreeRun{agreeWorld: w, t: t, name: cases[i].name, port: uint16(firstPort + i*portsPerCase)}
		o := run.show(cases[i])
		mu.Lock()
		defer mu.Unlock()
		shown[run.name] = o
	}
	for i, c := range cases {
		if !c.waits {
			t.Run(c.name, func(t *testing.T) { show(t, i) })
		}
	}
	t.Run("cases that wait", func(t *testing.T) {
		run := &agreeRun{agreeWorld: w, t: t, name: "all of them"}
		together := agreeCase{fast: fastBoth}
		before := run.carriedBy(together)
		var waiting sync.WaitGroup
		for i, c := range cases {
			if c.waits {
				waiting.Go(func() { show(t, i) })
			}
		}
		waiting.Wait()
		run.wantCarried(together, run.carriedBy(together).minus(before))
	})
	return shown
}

// show runs the case and returns what its ends received.
func (c *agreeRun) show(from agreeCase) observation {
	c.take(c.port, c.port+portsPerCase)
	before := c.carriedBy(from)
	start := time.Now()
	from.run(c)
	if elapsed := time.Since(start); elapsed > time.Second && !from.waits {
		c.t.Logf("took %v", elapsed)
	}
	c.wantCarried(from, c.carriedBy(from).minus(before))
	c.mu.Lock() // servers may go on for a moment
	o := observation{notes: slices.Clone(c.notes), arrivals: c.take(c.port, c.port+portsPerCase)}
	c.mu.Unlock()
	if c.failed {
		c.t.Logf("%s shows\n%s", c.name, strings.Join(o.lines(), "\n"))
	}
	for end, seen := range o.arrivals {
		for a := range seen {
			if strings.HasPrefix(a.Checksum, "bad") && !c.badAllowed {
				c.errorf("%s received %s", end, a)
			}
		}
	}
	return o
}

// errorf reports that the case does not work on this tier at all.
func (c *agreeRun) errorf(format string, args ...any) {
	c.t.Helper()
	c.failed = true
	c.t.Errorf(c.name+": "+format, args...)
}

func (c *agreeRun) carriedBy(from agreeCase) carried {
	if c.v == kernelTier || from.fast == fastAny || from.waits {
		return carried{}
	}
	return c.carried(c.t)
}

// wantCarried compares what carried the case's packets with what the case says.
func (c *agreeRun) wantCarried(from agreeCase, got carried) {
	if c.v == kernelTier || from.fast == fastAny || from.waits {
		return
	}
	total := got.direct + got.tracked + got.stack
	want, what := got.tracked, "by eBPF after conntrack"
	switch {
	case from.fast == fastNone:
		want, what = got.stack, "by the stack"
	case from.fast == fastBoth:
		want, what = got.direct+got.tracked, "by eBPF"
	case from.fast == fastDirect && c.v == directTier:
		want, what = got.direct, "by eBPF without conntrack"
	}
	least := total * 7 / 10
	if from.fast == fastNone {
		least = total
	}
	if total == 0 || want < least {
		c.errorf("%d of %d packets are carried %s; want %d (%+v)", want, total, what, least, got)
	}
}

// compareTiers compares what a case showed on a tier with what it showed on the
// first, and counts which of the listed differences it met.
func compareTiers(t *testing.T, v variant, c agreeCase, want, got observation, used map[int]int) {
	t.Helper()
	for _, line := range want.lacks(got, v.name, c, 1, used) {
		t.Errorf("missing: %s", line)
	}
	for _, line := range got.lacks(want, v.name, c, -1, used) {
		t.Errorf("only on tier %s: %s", v.name, line)
	}
	if t.Failed() {
		t.Logf("on tier %s:\n%s\non tier %s:\n%s", agreeTiers[0].name, strings.Join(want.lines(), "\n"), v.name, strings.Join(got.lines(), "\n"))
	}
}

// checkDifferences keeps the list of differences true: each one is met by a case
// and told to the reader.
func checkDifferences(t *testing.T, cases []agreeCase, shown map[string]observation, used map[int]int) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(testutil.RepoRoot(t), "docs/architecture.md"))
	if err != nil {
		t.Fatal(err)
	}
	for i, d := range differences {
		if !strings.Contains(string(text), d.listed) {
			t.Errorf("docs/architecture.md does not list the difference %q", d.listed)
		}
		if used[i] == 0 && len(shown) == len(cases) {
			t.Errorf("no case meets the difference of tier %s: %s", d.tier, d.reason)
		}
	}
	names := map[string]bool{}
	for _, c := range cases {
		if names[c.name] {
			t.Errorf("two cases have the name %q", c.name)
		}
		names[c.name] = true
	}
	if len(cases) < 60 {
		t.Errorf("%d cases; want 60 at least", len(cases))
	}
}
