// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/zipline-cni/zipline/cni"
	"github.com/zipline-cni/zipline/datapath"
	"github.com/zipline-cni/zipline/internal/testrig"
	"github.com/zipline-cni/zipline/ipam"
)

// patient is a private node with files of its own.
type patient struct {
	*testrig.Node
	t       *testing.T
	options Options
}

func newPatient(t *testing.T) *patient {
	t.Helper()
	p := &patient{Node: testrig.New(t, testrig.Options{}).Node, t: t}
	p.options = Options{Root: t.TempDir(), Parse: parse, sysctls: map[string]string{
		// One for the machine: other tests' nodes use it.
		expeditedKnob: "0",
	}}
	// The machine's first process is one with the node's mounts.
	p.write("/proc/1/mountinfo", p.MustRun(t, "cat", "/proc/thread-self/mountinfo"))
	return p
}

// parse is what the command has, with the real configuration's checks.
func parse(config []byte) (Network, error) {
	c, err := cni.ParseConfig(config, "")
	if err != nil {
		return Network{}, err
	}
	pool, err := ipam.NewPool(config, "")
	if err != nil {
		return Network{}, err
	}
	return Network{
		Name: c.Name, Forwarding: c.Forwarding, Gateway: c.IsGateway, MTU: c.MTU, Uplinks: c.Uplinks,
		Subnets: pool.Subnets(), DataDir: "/var/lib/cni/networks",
	}, nil
}

// write makes a file below the root.
func (p *patient) write(name, text string) {
	p.t.Helper()
	file := filepath.Join(p.options.Root, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		p.t.Fatal(err)
	}
}

// process makes one run, as far as /proc tells.
func (p *patient) process(name string) { p.write("/proc/4711/comm", name+"\n") }

// shell runs a script in the node.
func (p *patient) shell(script string) {
	p.t.Helper()
	p.MustRun(p.t, "sh", "-ec", script)
}

// network configures one of type zipline; more are further keys, as JSON.
func (p *patient) network(name, more string) {
	p.t.Helper()
	p.write("/etc/cni/net.d/"+name+".conf", networkJSON(name, more))
}

func networkJSON(name, more string) string {
	return fmt.Sprintf(`{"cniVersion": "1.0.0", "name": %q, "type": "zipline"%s,
		"ipam": {"type": "host-local", "subnet": "10.77.0.0/16"}}`, name, more)
}

// endpoint makes what looks like a host veth, on a node that tracks flows.
func (p *patient) endpoint(name string) {
	p.t.Helper()
	p.shell(fmt.Sprintf("ip link add %s group %d type veth peer name p%[1]s", name, datapath.Group))
	p.SetSysctl(p.t, "netfilter/nf_conntrack_tcp_be_liberal", "1")
	p.SetSysctl(p.t, "netfilter/nf_conntrack_tcp_ignore_invalid_rst", "1")
	p.SetSysctl(p.t, "ipv4/ip_forward", "1")
	p.SetSysctl(p.t, "ipv6/conf/all/forwarding", "1")
}

func (p *patient) run(ids ...string) *Report {
	p.t.Helper()
	var r *Report
	err := p.Do(func() (err error) {
		r, err = Run(p.options, ids...)
		return err
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return r
}

// complaints lists what is not ok, as "level check" or "level check: subject".
func complaints(r *Report) []string {
	var list []string
	for _, f := range r.Findings {
		if f.Level == OK {
			continue
		}
		text := string(f.Level) + " " + f.Check
		if f.Subject != "" {
			text += ": " + f.Subject
		}
		list = append(list, text)
	}
	slices.Sort(list)
	return list
}

// explain prints findings for a failed test.
func explain(r *Report) string {
	var out strings.Builder
	for _, f := range r.Findings {
		if f.Level != OK {
			fmt.Fprintf(&out, "%s %s %s: %s\n", f.Level, f.Check, f.Subject, f.Found)
		}
	}
	return out.String()
}

// illness is a condition and what the doctor finds besides what was there before.
type illness struct {
	name    string
	prepare func(p *patient)
	want    []string
}

// programs are those that mends begin with.
var programs = []string{
	"echo", "printf", "mkdir", "mount", "umount", "modprobe", "nft", "iptables", "ip6tables", "iptables-legacy", "ip", "bridge",
	"firewall-cmd", "systemctl", "ls",
}

// harmless are those that change nothing but the private node, where they must help.
var harmless = []string{"nft", "mount", "umount", "iptables", "ip6tables"}

// examine makes each condition in a node of its own.
func examine(t *testing.T, illnesses []illness) {
	t.Helper()
	for _, c := range illnesses {
		t.Run(c.name, func(t *testing.T) {
			p := newPatient(t)
			before := p.run()
			if w := before.Worst(); w == Warning || w == Problem {
				t.Fatalf("a fresh node has complaints:\n%s", explain(before))
			}
			healthy := complaints(before)
			c.prepare(p)
			after := p.run()
			found := slices.DeleteFunc(complaints(after), func(s string) bool { return slices.Contains(healthy, s) })
			slices.Sort(c.want)
			if !slices.Equal(found, c.want) {
				t.Errorf("found %q\nwant  %q\n%s", found, c.want, explain(after))
			}
			for _, f := range after.Findings {
				if (f.Level == Warning || f.Level == Problem) && (f.Found == "" || f.Check != "tier" && (f.Means == "" || f.Mend+f.Advice == "")) {
					t.Errorf("it does not say what it means, or how to mend it: %+v", f)
				}
				if strings.Contains(f.Mend, "%!") || strings.Contains(f.Found, "%!") {
					t.Errorf("badly formatted: %+v", f)
				}
				program, _, _ := strings.Cut(f.Mend, " ")
				if _, err := p.Run("sh", "-nc", f.Mend); err != nil || f.Mend != "" && !slices.Contains(programs, program) {
					t.Errorf("%s: %q is no command to paste: %v", f.Check, f.Mend, err)
				}
				if !slices.Contains(harmless, program) {
					continue
				}
				p.shell(f.Mend)
				if slices.ContainsFunc(p.run(f.Check).Findings, func(now Finding) bool { return now.Mend == f.Mend }) {
					t.Errorf("%s: %q does not mend it", f.Check, f.Mend)
				}
			}
		})
	}
}
