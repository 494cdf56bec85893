// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zipline-cni/zipline/internal/testrig"
)

// crashRounds is how many times each kind of process is killed.
const crashRounds = 30

// TestKilledADD kills ADD at random moments. What is left has to go by DEL, by
// GC or by a repeated DEL, and the container has to be attachable then.
func TestKilledADD(t *testing.T) {
	for _, v := range tiers {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			top := newTopology(t, v, testrig.Options{})
			witness := top.attach(network{})
			c := top.container()
			config := network{}.config(v)
			whole := top.typical(t, c, config)
			before := top.Node.Snapshot(t)
			killed := 0
			for round := range crashRounds {
				inv := c.Invocation("ADD", config)
				inv.KillAfter = moment(round, whole)
				if top.Node.Invoke(t, inv).ExitCode == -1 {
					killed++
				}
				cleaner := cleaners[round%len(cleaners)]
				mustSucceed(t, cleaner.name, cleaner.run(t, top, c, config, witness))
				top.wantSame(t, before)
				if t.Failed() {
					t.Fatalf("round %d: killed after %v of %v, cleaned by %s", round, inv.KillAfter, whole, cleaner.name)
				}
				p := top.add(c, config)
				if err := p.Ping(witness.v4); err != nil {
					t.Error(err)
				}
				mustSucceed(t, "DEL", c.Invoke(t, "DEL", config))
				top.wantSame(t, before)
				if t.Failed() {
					t.Fatalf("round %d, killed after %v of %v", round, inv.KillAfter, whole)
				}
			}
			if killed < crashRounds/3 {
				t.Errorf("only %d of %d were killed in time", killed, crashRounds)
			}
			reach(t, &top.Node.Namespace, &witness.Namespace, witness.v4)
		})
	}
}

// cleaners are the ways in which a runtime gets rid of what it does not know.
var cleaners = []struct {
	name string
	run  func(t *testing.T, top *topology, c *testrig.Container, config string, witness *pod) testrig.Reply
}{
	{"DEL", func(t *testing.T, _ *topology, c *testrig.Container, config string, _ *pod) testrig.Reply {
		return c.Invoke(t, "DEL", config)
	}},
	{"GC", func(_ *testing.T, top *topology, _ *testrig.Container, config string, witness *pod) testrig.Reply {
		return top.gc(gcConfig(config, witness))
	}},
	{"DEL without a namespace", func(t *testing.T, top *topology, c *testrig.Container, config string, _ *pod) testrig.Reply {
		inv := c.Invocation("DEL", config)
		inv.Netns = ""
		return top.Node.Invoke(t, inv)
	}},
}

// TestKilledFirstADD kills the ADD that sets up the node itself.
func TestKilledFirstADD(t *testing.T) {
	for _, v := range tiers {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			for round := range crashRounds / 2 {
				top := newTopology(t, v, testrig.Options{})
				fresh := top.Node.Snapshot(t)
				c := top.container()
				config := network{}.config(v)
				inv := c.Invocation("ADD", config)
				inv.KillAfter = moment(round*2, 60*time.Millisecond)
				top.Node.Invoke(t, inv)
				mustSucceed(t, "DEL", c.Invoke(t, "DEL", config))
				top.wantNothingLeft(t, fresh)
				pods := []*pod{top.add(c, config), top.attach(network{})}
				for _, f := range families {
					reach(t, &pods[0].Namespace, &pods[1].Namespace, f.addr(pods[1]))
					reach(t, &pods[0].Namespace, top.Outside, f.outside)
				}
				mustSucceed(t, "CHECK", c.Invoke(t, "CHECK", withPrevResult(t, config, pods[0].result)))
				if t.Failed() {
					t.Fatalf("round %d, killed after %v", round, inv.KillAfter)
				}
			}
		})
	}
}

// TestKilledDEL kills DEL at random moments; a second one finishes its work.
func TestKilledDEL(t *testing.T) {
	for _, v := range tiers {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			top := newTopology(t, v, testrig.Options{})
			witness := top.attach(network{})
			c := top.container()
			config := network{}.config(v)
			whole := top.typical(t, c, config)
			before := top.Node.Snapshot(t)
			for round := range crashRounds {
				top.add(c, config)
				inv := c.Invocation("DEL", config)
				inv.KillAfter = moment(round, whole)
				top.Node.Invoke(t, inv)
				if round%2 == 0 {
					mustSucceed(t, "DEL", c.Invoke(t, "DEL", config))
				} else {
					mustSucceed(t, "GC", top.gc(gcConfig(config, witness)))
				}
				top.wantSame(t, before)
				if t.Failed() {
					t.Fatalf("round %d, killed after %v of %v", round, inv.KillAfter, whole)
				}
			}
			reach(t, &top.Node.Namespace, &witness.Namespace, witness.v4)
		})
	}
}

// TestKilledGC kills GC with work for it; a second one finishes it.
func TestKilledGC(t *testing.T) {
	top := newTopology(t, directTier, testrig.Options{})
	witness := top.attach(network{})
	config := network{}.config(top.v)
	before := top.Node.Snapshot(t)
	containers := []*testrig.Container{top.container(), top.container(), top.container()}
	for round := range crashRounds / 2 {
		for _, c := range containers {
			top.add(c, config)
		}
		top.Node.Invoke(t, testrig.Invocation{
			Command: "GC", Config: gcConfig(config, witness), KillAfter: moment(round*2, 60*time.Millisecond),
		})
		mustSucceed(t, "GC", top.gc(gcConfig(config, witness)))
		top.wantSame(t, before)
		if t.Failed() {
			t.Fatalf("round %d", round)
		}
	}
}

// moment spreads the rounds over the time that a process takes, with some
// chance in each.
func moment(round int, whole time.Duration) time.Duration {
	part := whole * time.Duration(round+1) / crashRounds
	return part + time.Duration(rand.Int64N(int64(whole)/crashRounds+1))
}

// typical returns how long an ADD of the container takes here and now, and
// leaves it detached.
func (top *topology) typical(t *testing.T, c *testrig.Container, config string) time.Duration {
	t.Helper()
	var took []time.Duration
	for range 5 {
		reply := c.Invoke(t, "ADD", config)
		mustSucceed(t, "ADD", reply)
		took = append(took, reply.Elapsed)
		mustSucceed(t, "DEL", c.Invoke(t, "DEL", config))
	}
	return quantile(took, 0.5)
}

// wantSame compares the node with an earlier state, but for what may change.
func (top *topology) wantSame(t *testing.T, before testrig.Snapshot) {
	t.Helper()
	diff := before.Diff(top.Node.Snapshot(t), staysOnNode...)
	// A device has a hundred settings: its own line says enough.
	diff = deleteMatching(diff, regexp.MustCompile(`^[-+] sysctl ipv[46]/conf/zl`))
	if len(diff) > 0 {
		t.Errorf("the node differs:\n%s", strings.Join(diff, "\n"))
	}
}

func mustSucceed(t *testing.T, what string, reply testrig.Reply) {
	t.Helper()
	if err := reply.Err(); err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

// quantile returns the value below which this part of the values lies.
func quantile(values []time.Duration, part float64) time.Duration {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[int(part*float64(len(sorted)-1))]
}
