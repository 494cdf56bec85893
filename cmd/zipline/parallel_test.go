// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"net/netip"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/zipline-cni/zipline/internal/testrig"
)

// TestParallelADDs attaches 200 containers, 32 at a time, and deletes them in
// the same way. ZIPLINE_TEST_ENDPOINTS sets another number, such as 2000: twice
// what a bridge can have.
func TestParallelADDs(t *testing.T) {
	count, atOnce := 200, 32
	if text := os.Getenv("ZIPLINE_TEST_ENDPOINTS"); text != "" {
		var err error
		if count, err = strconv.Atoi(text); err != nil {
			t.Fatalf("ZIPLINE_TEST_ENDPOINTS: %v", err)
		}
	}
	for _, v := range tiers {
		t.Run(v.name, func(t *testing.T) { testParallel(t, v, count, atOnce) })
	}
}

func testParallel(t *testing.T, v variant, count, atOnce int) {
	top := newTopology(t, v, testrig.Options{})
	fresh := top.Node.Snapshot(t)
	config := network{}.config(v)
	containers := make([]*testrig.Container, count)
	for i := range containers {
		containers[i] = top.container()
	}
	pods := make([]*pod, count)
	took := inParallel(count, atOnce, func(i int) {
		if reply := containers[i].Invoke(t, "ADD", config); reply.Err() != nil {
			t.Errorf("ADD %d: %v", i, reply.Err())
		} else {
			pods[i] = newPod(t, containers[i], config, parseResult(t, reply.Stdout))
		}
	})
	if t.Failed() {
		return
	}
	t.Logf("%s: %d ADDs, %d at a time: %v", v.name, count, atOnce, took)
	seen := map[netip.Addr]string{}
	for _, p := range pods {
		for _, addr := range []netip.Addr{p.v4, p.v6} {
			if other, twice := seen[addr]; twice {
				t.Errorf("%s and %s both have %s", other, p.ID, addr)
			}
			seen[addr] = p.ID
		}
	}
	// The kernel has one neighbour table for all namespaces, with room for 1024
	// entries by default (gc_thresh3): some containers stand for all.
	for i := 1; i < count; i += max(1, count/200) {
		if err := pods[i].Ping(pods[0].v4); err != nil {
			t.Error(err)
		}
	}
	for _, i := range []int{0, count / 2, count - 1} {
		p := pods[i]
		if err := p.Invoke(t, "CHECK", withPrevResult(t, config, p.result)).Err(); err != nil {
			t.Error(err)
		}
		for _, f := range families {
			reach(t, &pods[1].Namespace, &p.Namespace, f.addr(p))
			reach(t, &p.Namespace, top.Outside, f.outside)
		}
	}
	took = inParallel(count, atOnce, func(i int) {
		if reply := containers[i].Invoke(t, "DEL", config); reply.Err() != nil {
			t.Errorf("DEL %d: %v", i, reply.Err())
		}
	})
	t.Logf("%s: %d DELs, %d at a time: %v", v.name, count, atOnce, took)
	top.wantNothingLeft(t, fresh)
}

// TestComingAndGoing adds and deletes in parallel for a while, so that each verb
// meets each other one, and the last endpoint of a subnet often goes while
// another one comes.
func TestComingAndGoing(t *testing.T) {
	for _, v := range tiers {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			top := newTopology(t, v, testrig.Options{})
			fresh := top.Node.Snapshot(t)
			networks := []network{{}, {name: "other", segment: "seg1", v4: "10.78.0.0/16", v6: "fd00:78::/64"}}
			containers := make([]*testrig.Container, 4)
			for i := range containers {
				containers[i] = top.container()
			}
			inParallel(len(containers), len(containers), func(i int) {
				config := networks[i%2].config(v)
				for round := range 12 {
					reply := containers[i].Invoke(t, "ADD", config)
					if reply.Err() != nil {
						t.Errorf("ADD %d of %d: %v", round, i, reply.Err())
						return
					}
					p := newPod(t, containers[i], config, parseResult(t, reply.Stdout))
					if err := p.Ping(testrig.InternetIPv4); err != nil {
						t.Errorf("round %d of %d: %v", round, i, err)
					}
					if err := p.Invoke(t, "CHECK", withPrevResult(t, config, p.result)).Err(); err != nil {
						t.Errorf("CHECK %d of %d: %v", round, i, err)
					}
					if err := p.Invoke(t, "DEL", config).Err(); err != nil {
						t.Errorf("DEL %d of %d: %v", round, i, err)
					}
				}
			})
			top.wantNothingLeft(t, fresh)
		})
	}
}

// inParallel calls f for 0 to count-1, some at a time, and returns how long it
// took.
func inParallel(count, atOnce int, f func(i int)) time.Duration {
	start := time.Now()
	var group sync.WaitGroup
	places := make(chan struct{}, atOnce)
	for i := range count {
		places <- struct{}{}
		group.Go(func() {
			defer func() { <-places }()
			f(i)
		})
	}
	group.Wait()
	return time.Since(start)
}

// TestCostDoesNotGrowWithTheNumberOfEndpoints compares ADD among few and among
// many. The bounds of the benchmark are tighter; this one is never noise.
func TestCostDoesNotGrowWithTheNumberOfEndpoints(t *testing.T) {
	top := newTopology(t, directTier, testrig.Options{})
	config := network{}.config(top.v)
	attach := func(count int) time.Duration {
		var took []time.Duration
		for range count {
			reply := top.container().Invoke(t, "ADD", config)
			if err := reply.Err(); err != nil {
				t.Fatal(err)
			}
			took = append(took, reply.Elapsed)
		}
		return quantile(took, 0.5)
	}
	attach(5)
	rules := len(top.nftRules(t))
	few := attach(30)
	attach(265)
	many := attach(30)
	t.Logf("median ADD with 5 to 35 endpoints: %v, with 300 to 330: %v", few, many)
	if many > 3*few {
		t.Errorf("ADD takes %v with 300 endpoints and %v with 5", many, few)
	}
	if got := len(top.nftRules(t)); got != rules {
		t.Errorf("%d nft rules with 330 endpoints, %d with 5", got, rules)
	}
}
