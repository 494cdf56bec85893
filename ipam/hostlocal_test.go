// SPDX-License-Identifier: Apache-2.0

package ipam

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/zipline-cni/zipline/internal/reference"
)

// hostLocal is the real host-local.
type hostLocal string

func newHostLocal(tb testing.TB) hostLocal {
	tb.Helper()
	return hostLocal(filepath.Join(reference.Plugins(tb), "host-local"))
}

func (h hostLocal) run(command, stdin, args string, o Owner) ([]byte, error) {
	cmd := exec.Command(string(h))
	cmd.Env = []string{
		"CNI_COMMAND=" + command, "CNI_CONTAINERID=" + o.ContainerID, "CNI_IFNAME=" + o.IfName,
		"CNI_NETNS=/var/run/netns/none", "CNI_PATH=/nonexistent", "CNI_ARGS=" + args, "CNI_NETNS_OVERRIDE=1",
	}
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("host-local %s: %w: %s%s", command, err, stdout.String(), stderr.String())
	}
	return stdout.Bytes(), nil
}

// hostLocalResult is a result of CNI version 1.0.0.
type hostLocalResult struct {
	IPs []struct{ Address, Gateway string }
	DNS DNS
	// Routes are compared as JSON, with every key that host-local prints.
	Routes []map[string]any
}

func (h hostLocal) add(stdin, args string, o Owner) (hostLocalResult, error) {
	var result hostLocalResult
	out, err := h.run("ADD", stdin, args, o)
	if err == nil {
		err = json.Unmarshal(out, &result)
	}
	return result, err
}

func (r hostLocalResult) String() string {
	var parts []string
	for _, ip := range r.IPs {
		parts = append(parts, ip.Address+" "+ip.Gateway)
	}
	return strings.Join(parts, ", ")
}

func (r *Result) describe() string {
	var parts []string
	for _, a := range r.Addresses {
		parts = append(parts, a.Prefix.String()+" "+a.Gateway.String())
	}
	return strings.Join(parts, ", ")
}

func (h hostLocal) mustRun(tb testing.TB, command, stdin string, o Owner) {
	tb.Helper()
	if _, err := h.run(command, stdin, "", o); err != nil {
		tb.Fatal(err)
	}
}

func TestHostLocalRefusesTheSameConfigurations(t *testing.T) {
	h := newHostLocal(t)
	for _, tt := range badConfigs {
		// DEL reads the configuration as ADD does.
		if _, err := h.run("DEL", tt.stdin, tt.args, owner(1)); err == nil {
			t.Errorf("host-local accepts %s", tt.name)
		}
	}
}

func TestResultsAreHostLocals(t *testing.T) {
	h := newHostLocal(t)
	resolvConf := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(resolvConf, []byte(sampleResolvConf), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, ipam := range map[string]string{
		"every route key": `{"subnet":"10.0.0.0/24","routes":[{"dst":"0.0.0.0/0"},
			{"dst":"10.9.8.7/8","gw":"10.0.0.2","mtu":1400,"advmss":1360,"priority":7,"table":100,"scope":0}]}`,
		"resolv.conf":             fmt.Sprintf(`{"subnet":"10.0.0.0/24","resolvConf":%q}`, resolvConf),
		"prefix length with zero": `{"subnet":"10.0.0.0/024"}`,
		"empty strings":           `{"subnet":"10.0.0.0/24","gateway":"","rangeStart":"","rangeEnd":null}`,
		"an unknown key":          `{"subnet":"10.0.0.0/24","Gateways":[],"x":{"y":1}}`,
		"a gateway elsewhere":     `{"subnet":"10.0.0.0/24","gateway":"192.0.2.1"}`,
		"mapped addresses":        `{"subnet":"10.0.0.0/24","gateway":"::ffff:10.0.0.2","rangeStart":"::ffff:10.0.0.2"}`,
		"older and newer keys":    `{"SUBNET":"10.0.0.0/24","ranges":[[{"subnet":"10.1.0.0/24"}],[{"Subnet":"fd00::/126"}]]}`,
		"the whole of IPv4":       `{"subnet":"0.0.0.0/0"}`,
		"the last subnet":         `{"subnet":"255.255.255.252/30"}`,
		"the last IPv6 subnet":    `{"subnet":"ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffc/126"}`,
	} {
		t.Run(name, func(t *testing.T) {
			want, err := h.add(poolConfig(t.TempDir(), ipam), "", owner(1))
			if err != nil {
				t.Fatal(err)
			}
			got, err := newPool(t, t.TempDir(), ipam).Allocate(owner(1))
			if err != nil {
				t.Fatal(err)
			}
			if got.describe() != want.String() {
				t.Errorf("got %s, host-local %s", got.describe(), want)
			}
			if !reflect.DeepEqual(got.DNS, want.DNS) {
				t.Errorf("got DNS %+v, host-local %+v", got.DNS, want.DNS)
			}
			var routes []map[string]any
			for _, r := range got.Routes {
				routes = append(routes, r.asJSON(t))
			}
			if !reflect.DeepEqual(routes, want.Routes) {
				t.Errorf("got routes %v, host-local %v", routes, want.Routes)
			}
		})
	}
}

// asJSON returns the route as a plugin prints it.
func (r Route) asJSON(tb testing.TB) map[string]any {
	tb.Helper()
	raw := struct {
		Dst      string `json:"dst"`
		GW       string `json:"gw,omitempty"`
		MTU      int    `json:"mtu,omitempty"`
		AdvMSS   int    `json:"advmss,omitempty"`
		Priority int    `json:"priority,omitempty"`
		Table    *int   `json:"table,omitempty"`
		Scope    *int   `json:"scope,omitempty"`
	}{Dst: r.Dst.String(), MTU: r.MTU, AdvMSS: r.AdvMSS, Priority: r.Priority, Table: r.Table, Scope: r.Scope}
	if r.GW.IsValid() {
		raw.GW = r.GW.String()
	}
	data, err := json.Marshal(raw)
	if err != nil {
		tb.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(data, &m); err != nil {
		tb.Fatal(err)
	}
	return m
}

// sequences are configurations under which random commands are compared.
var sequences = map[string]string{
	"a small range": `{"ranges":[[{"subnet":"10.0.0.0/28"}]]}`,
	"two families":  `{"ranges":[[{"subnet":"10.0.0.0/27","gateway":"10.0.0.7"}],[{"subnet":"2001:db8::/123"}]]}`,
	"ranges with gaps": `{"ranges":[[{"subnet":"10.0.0.0/24","rangeStart":"10.0.0.250"},{"subnet":"10.0.2.0/29"},
		{"subnet":"10.0.0.0/24","rangeStart":"10.0.0.10","rangeEnd":"10.0.0.14","gateway":"10.0.0.12"}]]}`,
	"three sets, the last of which runs out": `{"subnet":"10.0.3.0/24","ranges":[[{"subnet":"10.0.4.0/24"}],[{"subnet":"10.0.5.0/29"}]]}`,
}

// step is one command of a random sequence.
type step struct {
	owner Owner
	add   bool
	args  string
}

// newSteps returns a random sequence. An owner that may hold leases requests no
// other address, because host-local would give it a second one.
func newSteps(rng *rand.Rand, n int) []step {
	var steps []step
	busy := map[Owner]bool{}
	for range n {
		s := step{owner: owner(rng.IntN(24)), add: rng.IntN(5) < 3}
		if s.add && !busy[s.owner] && rng.IntN(4) == 0 {
			s.args = fmt.Sprintf("IgnoreUnknown=1;X=y;IP=10.0.%d.%d", rng.IntN(6), rng.IntN(16))
		}
		busy[s.owner] = s.add
		steps = append(steps, s)
	}
	return steps
}

// outcome is what became of a step.
type outcome struct {
	result string
	ok     bool
	reused bool
}

func TestTheSameCommandsGiveTheSameAddresses(t *testing.T) {
	h := newHostLocal(t)
	for name, ipam := range sequences {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			theirs, ours := t.TempDir(), t.TempDir()
			steps := newSteps(rand.New(rand.NewPCG(1, uint64(len(name)))), 150)
			compare(t, steps, theirs, ours, func(s step) (outcome, outcome) {
				return h.do(s, poolConfig(theirs, ipam)), do(t, s, poolConfig(ours, ipam))
			})
		})
	}
}

func TestOneDirectoryServesBothPrograms(t *testing.T) {
	h := newHostLocal(t)
	for name, ipam := range sequences {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(2, uint64(len(name))))
			theirs, shared := t.TempDir(), t.TempDir()
			compare(t, newSteps(rng, 150), theirs, shared, func(s step) (outcome, outcome) {
				want := h.do(s, poolConfig(theirs, ipam))
				if rng.IntN(2) == 0 {
					return want, do(t, s, poolConfig(shared, ipam))
				}
				return want, h.do(s, poolConfig(shared, ipam))
			})
			p := newPool(t, shared, ipam)
			mustLeases(t, p, owner(0)) // brings the index up to date
			checkSound(t, p)
		})
	}
}

// compare runs every step with host-local in one directory and with something
// else in the other, and compares results and files after each.
func compare(t *testing.T, steps []step, theirs, ours string, both func(step) (outcome, outcome)) {
	t.Helper()
	seen := map[outcome]bool{}
	for i, s := range steps {
		want, got := both(s)
		seen[outcome{ok: want.ok, reused: got.reused}] = true
		// host-local refuses an ADD that is repeated, and that alone differs.
		if got != want && (!got.reused || want.ok) {
			t.Fatalf("step %d, %+v: got %+v; host-local %+v", i, s, got, want)
		}
		gotFiles, wantFiles := leaseFiles(t, filepath.Join(ours, "net")), leaseFiles(t, filepath.Join(theirs, "net"))
		if !reflect.DeepEqual(gotFiles, wantFiles) {
			t.Fatalf("step %d, %+v: got files %q; host-local %q", i, s, gotFiles, wantFiles)
		}
	}
	for _, o := range []outcome{{ok: true}, {ok: false}, {ok: false, reused: true}} {
		if !seen[o] {
			t.Errorf("no step had the outcome %+v", o)
		}
	}
}

func (h hostLocal) do(s step, stdin string) outcome {
	if !s.add {
		_, err := h.run("DEL", stdin, s.args, s.owner)
		return outcome{ok: err == nil}
	}
	result, err := h.add(stdin, s.args, s.owner)
	return outcome{result: result.String(), ok: err == nil}
}

func do(t *testing.T, s step, stdin string) outcome {
	t.Helper()
	p := newPoolWith(t, stdin, s.args)
	if !s.add {
		mustRelease(t, p, s.owner)
		return outcome{ok: true}
	}
	result, err := p.Allocate(s.owner)
	if err != nil {
		return outcome{}
	}
	return outcome{result: result.describe(), ok: true, reused: result.Reused}
}
