// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zipline-cni/zipline/internal/reference"
	"github.com/zipline-cni/zipline/internal/testrig"
	"github.com/zipline-cni/zipline/internal/testutil"
	"github.com/zipline-cni/zipline/loader"
)

// status executes STATUS as a runtime does, without a container's variables.
func (top *topology) status(config string) testrig.Reply {
	top.tb.Helper()
	return top.Node.Invoke(top.tb, testrig.Invocation{Command: "STATUS", Config: config})
}

func TestStatusOfAWorkingNetworkSaysNothingAndChangesNothing(t *testing.T) {
	for _, v := range append([]variant{automatic}, tiers...) {
		top := newTopology(t, v, testrig.Options{})
		before := top.Node.Snapshot(t)
		reply := top.status(network{}.config(v))
		if reply.Err() != nil || reply.Stdout != "" {
			t.Errorf("%s, fresh node: %v, stdout %q", v.name, reply.Err(), reply.Stdout)
		}
		top.wantUnchanged(t, before)
		p := top.attach(network{})
		if err := top.status(p.config).Err(); err != nil {
			t.Errorf("%s, with a container: %v", v.name, err)
		}
	}
}

func TestStatusReportsWhatADDWouldMeet(t *testing.T) {
	for _, c := range []struct {
		name    string
		code    uint
		details string
		config  network
		prepare func(t *testing.T, top *topology)
	}{
		{"an exhausted pool", 50, "ipam", network{v4: "10.77.0.0/29", v6: "-"}, func(t *testing.T, top *topology) {
			top.attachAll(network{v4: "10.77.0.0/29", v6: "-"}, 5)
		}},
		{"a delegate that is not installed", 50, "ipam", network{ipam: map[string]any{"type": "no-such-ipam"}}, nil},
		{"a delegate that is not available", 51, "", network{ipam: map[string]any{"type": "recorder", "status": 51}}, nil},
		{"bpffs that cannot be used in a mode asked for by name", 50, "", network{}, readOnlyBPF},
		{"bpffs that cannot be used in the kernel's mode", 0, "", network{keys: map[string]any{"forwarding": "kernel"}}, readOnlyBPF},
		{"bpffs that cannot be used in the automatic mode", 0, "", network{keys: map[string]any{"forwarding": "auto"}}, readOnlyBPF},
		{"a bad key", 7, "forwarding", network{keys: map[string]any{"forwarding": "fast"}}, nil},
		{"a version without STATUS", 1, "", network{keys: map[string]any{"cniVersion": "1.0.0"}}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			top := newTopology(t, directTier, testrig.Options{PluginPath: []string{recordingIPAM(t)}})
			if c.prepare != nil {
				c.prepare(t, top)
			}
			before := top.Node.Snapshot(t)
			reply := top.status(c.config.config(top.v))
			if c.code == 0 {
				if err := reply.Err(); err != nil {
					t.Error(err)
				}
			} else {
				wantError(t, reply, c.code, c.details, "")
			}
			top.Node.MustRun(t, "rm", "-f", "/run/recorder")
			top.wantUnchanged(t, before)
		})
	}
}

// TestUnusableBPFFS attaches where nothing can be pinned: the kernel forwards
// then, in every mode, and a warning says so where eBPF was asked for.
func TestUnusableBPFFS(t *testing.T) {
	for forwarding, warns := range map[string]bool{"auto": true, "kernel": false, "direct": true} {
		t.Run(forwarding, func(t *testing.T) {
			t.Parallel()
			top := newTopology(t, directTier, testrig.Options{})
			readOnlyBPF(t, top)
			fresh := top.Node.Snapshot(t)
			n := network{keys: map[string]any{"forwarding": forwarding}}
			c := top.container()
			reply := c.Invoke(t, "ADD", n.config(top.v))
			if err := reply.Err(); err != nil {
				t.Fatal(err)
			}
			if got := strings.Contains(reply.Stderr, "warning"); got != warns {
				t.Errorf("stderr %q; want a warning: %v", reply.Stderr, warns)
			}
			pods := []*pod{newPod(t, c, n.config(top.v), parseResult(t, reply.Stdout)), top.attach(n)}
			for _, f := range families {
				reach(t, &pods[0].Namespace, &pods[1].Namespace, f.addr(pods[1]))
				reach(t, &pods[0].Namespace, top.Outside, f.outside)
			}
			check := pods[0].Invoke(t, "CHECK", withPrevResult(t, pods[0].config, pods[0].result))
			if forwarding == "direct" {
				wantError(t, check, codeCheckFailed, "forwarding", "falls back to the kernel's own")
			} else {
				mustSucceed(t, "CHECK", check)
			}
			top.del(pods[0])
			top.del(pods[1])
			top.wantNothingLeft(t, fresh)
		})
	}
}

// poorKernels are changes of what the node's kernel says about itself, so that
// programs cannot be loaded with all that they have, or not at all.
var poorKernels = []struct {
	name    string
	command string
	told    map[string]string // of modes that cannot be had, words of what is missing
}{
	{
		name: "a kernel without conntrack functions",
		// The functions are the kernel's or a module's.
		command: "for f in $(grep -l bpf_skb_ct_lookup /sys/kernel/btf/*); do copy=/run/$(basename $f);" +
			"sed s/bpf_skb_ct_lookup/bpf_xxx_xx_xxxxxx/g $f > $copy; mount --bind $copy $f; done",
		told: map[string]string{"tracked": "bpf_skb_ct_lookup"},
	}, {
		name:    "a kernel that does not describe its types",
		command: "mount -t tmpfs none /sys/kernel/btf",
		told:    map[string]string{"tracked": "types of the kernel", "direct": "types of the kernel"},
	},
}

// TestAPoorerKernelIsTold attaches on a node whose kernel lacks something: ADD warns
// and forwards another way, and STATUS and CHECK say so where the mode was asked
// for by name.
func TestAPoorerKernelIsTold(t *testing.T) {
	for _, k := range poorKernels {
		for _, v := range append([]variant{automatic}, tiers...) {
			t.Run(k.name+", "+v.name, func(t *testing.T) {
				t.Parallel()
				top := newTopology(t, v, testrig.Options{})
				testutil.RequireKernel(t, "conntrack functions", loader.HaveConntrack())
				top.Node.MustRun(t, "sh", "-ec", k.command)
				c, config := top.container(), network{}.config(v)
				reply := c.Invoke(t, "ADD", config)
				if err := reply.Err(); err != nil {
					t.Fatal(err)
				}
				if warns := strings.Contains(reply.Stderr, "warning"); warns == (v == kernelTier) {
					t.Errorf("stderr %q; want a warning: %v", reply.Stderr, !warns)
				}
				p, other := newPod(t, c, config, parseResult(t, reply.Stdout)), top.attach(network{})
				for _, f := range families {
					reach(t, &p.Namespace, &other.Namespace, f.addr(other))
					reach(t, &p.Namespace, top.Outside, f.outside)
				}
				status, check := top.status(config), p.Invoke(t, "CHECK", withPrevResult(t, config, p.result))
				if missing := k.told[v.forwarding]; missing != "" {
					wantError(t, status, 50, "forwarding", missing)
					wantError(t, check, codeCheckFailed, "forwarding", "falls back to the kernel's own: "+missing)
				} else {
					mustSucceed(t, "STATUS", status)
					mustSucceed(t, "CHECK", check)
				}
			})
		}
	}
}

// readOnlyBPF makes the node's bpffs refuse every pin.
func readOnlyBPF(t *testing.T, top *topology) {
	t.Helper()
	top.Node.MustRun(t, "mount", "-o", "remount,ro", "/sys/fs/bpf")
}

// TestBPFFSThatIsNotMounted attaches on a node where nobody mounted it.
func TestBPFFSThatIsNotMounted(t *testing.T) {
	top := newTopology(t, directTier, testrig.Options{})
	top.Node.MustRun(t, "umount", "/sys/fs/bpf")
	pods := top.attachAll(network{}, 2)
	for _, f := range families {
		reach(t, &pods[0].Namespace, &pods[1].Namespace, f.addr(pods[1]))
	}
	if err := pods[0].Invoke(t, "CHECK", withPrevResult(t, pods[0].config, pods[0].result)).Err(); err != nil {
		t.Error(err)
	}
}

// TestEachCallInAMountNamespaceOfItsOwn is a runtime under "ip netns exec", which
// mounts /sys anew for every call: pins do not outlive one, yet the node must
// not fall apart into two sets of maps.
func TestEachCallInAMountNamespaceOfItsOwn(t *testing.T) {
	top := newTopology(t, directTier, testrig.Options{})
	plugin := reference.BuildZipline(t)
	call := func(command, config string, c *testrig.Container) string {
		t.Helper()
		script := "mount -t sysfs none /sys; mount -t bpf none /sys/fs/bpf; exec " + plugin
		return top.Node.MustRunInput(t, config, "env", "CNI_COMMAND="+command, "CNI_CONTAINERID="+c.ID, "CNI_NETNS="+c.Path,
			"CNI_IFNAME="+testrig.IfName, "CNI_PATH="+filepath.Dir(plugin), "unshare", "-m", "sh", "-c", script)
	}
	config := network{}.config(top.v)
	var pods []*pod
	for range 3 {
		c := top.container()
		pods = append(pods, newPod(t, c, config, parseResult(t, call("ADD", config, c))))
	}
	for _, f := range families {
		for _, to := range pods[1:] {
			reach(t, &pods[0].Namespace, &to.Namespace, f.addr(to))
		}
	}
	for _, p := range pods {
		call("CHECK", withPrevResult(t, config, p.result), p.Container)
	}
	call("DEL", config, pods[0].Container)
	for _, f := range families {
		reach(t, &pods[1].Namespace, &pods[2].Namespace, f.addr(pods[2]))
		if _, err := pods[1].PingWith(f.addr(pods[0]), testrig.PingOptions{Negative: true}); err == nil {
			t.Errorf("%s: a deleted container answers", f.name)
		}
	}
}

// recordingIPAM makes an IPAM plugin named recorder in a directory of its own.
// It notes its calls in /run/recorder, gives one address, and fails STATUS with
// the code that its key "status" says.
func recordingIPAM(tb testing.TB) string {
	tb.Helper()
	dir := tb.TempDir()
	script := `#!/bin/sh
stdin=$(cat)
echo "$CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME $stdin" >> /run/recorder
case "$CNI_COMMAND $stdin" in
ADD*) echo '{"cniVersion":"1.1.0","ips":[{"address":"10.77.0.40/16","gateway":"10.77.0.1"}]}' ;;
STATUS*'"status":51'*) echo '{"cniVersion":"1.1.0","code":51,"msg":"few addresses"}'; exit 1 ;;
esac
`
	if err := os.WriteFile(filepath.Join(dir, "recorder"), []byte(script), 0o755); err != nil {
		tb.Fatal(err)
	}
	return dir
}
