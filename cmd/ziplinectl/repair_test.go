// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/zipline-cni/zipline/datapath"
	"github.com/zipline-cni/zipline/internal/testrig"
)

// repairVolatile is what may differ after a repair: program ids and load times, and
// map entries that name nothing of the endpoint's.
var repairVolatile = []*regexp.Regexp{
	regexp.MustCompile(`^file /run/zipline/\d+/`),
	regexp.MustCompile(`^file /var/lib/cni/networks/net/\.zipline/state`),
}

// repaired runs repair and returns what it lists.
func (w *steerWorld) repaired(cacheDir string, args ...string) []repairJSON {
	w.tb.Helper()
	var list []repairJSON
	w.ctlJSON(&list, append([]string{"repair", "--cache-dir", cacheDir}, args...)...)
	return list
}

// damage is one thing that can be destroyed.
type damage struct {
	name string
	// object is what repair has to name.
	object string
	do     string // shell; $a and $b are the host veths, $4 the first container's address
}

var damages = []damage{
	{"a map entry", "endpoint map entry", "bpftool map delete pinned $(ls -d /sys/fs/bpf/zipline/*/v*)/endpoints key hex 00 00 00 00 00 00 00 00 00 00 ff ff 0a 4d 00 02"},
	{"the device record", "device map entry", `bpftool map delete pinned $(ls -d /sys/fs/bpf/zipline/*/v*)/devices key hex $(printf '%02x 00 00 00' $(cat /sys/class/net/$a/ifindex))`},
	{"the pins", "programs and their pins", "rm -r /sys/fs/bpf/zipline"},
	{"one pin", "programs and their pins", "rm /sys/fs/bpf/zipline/*/v*/from_endpoint"},
	{"the record", "programs and their pins", "rm /run/zipline/*/programs"},
	{"programs on a veth", "program on", "$ctl detach $a"},
	{"programs on the uplink", "uplink uplink0", "$ctl detach uplink0"},
	{"all programs", "program on", "$ctl unload --force"},
	{"a route", "route 10.77.0.2", "ip route del $4 proto 122"},
	{"an IPv6 route", "route fd00:77::2", "ip -6 route del fd00:77::2 dev $a"},
	{"the guard", "route 10.77.0.0/24", "ip route del unreachable 10.77.0.0/24"},
	{"a neighbour", "neighbour 10.77.0.2", "ip neigh del $4 dev $a"},
	{"a neighbour's MAC", "neighbour 10.77.0.2", "ip neigh replace $4 dev $a lladdr 02:00:00:00:00:01 nud reachable extern_learn"},
	{"a gateway address", "gateway address 10.77.0.1", "ip addr del 10.77.0.1/32 dev $a"},
	{"an element", "element", "nft delete element inet zipline source4 { $4 }"},
	{"a rule", "rule", "nft flush chain inet zipline postrouting"},
	{"the rules' order", "chain", "nft insert rule inet zipline forward counter accept"},
	{"the table", "table inet zipline", "nft delete table inet zipline"},
	{"ip_forward", "sysctl net/ipv4/ip_forward", "sysctl -qw net.ipv4.ip_forward=0"},
	{"forwarding of the veth", "sysctl net/ipv4/conf/", "sysctl -qw net/ipv4/conf/$a/forwarding=0"},
	{"accept_ra", "sysctl net/ipv6/conf/", "sysctl -qw net/ipv6/conf/$a/accept_ra=1"},
	{"liberal", "sysctl net/netfilter/nf_conntrack_tcp_be_liberal", "sysctl -qw net/netfilter/nf_conntrack_tcp_be_liberal=0"},
	{"the alias", "device zl", "ip link set $a alias somebody"},
	{"the group", "device zl", "ip link set $a group 0"},
	{"the device's MAC", "device zl", "ip link set $a address 02:00:00:00:00:77"},
	{"the device's state", "device zl", "ip link set $a down"},
	{"all routes", "route 10.77.0.2", "ip route flush proto 122; ip -6 route flush proto 122"},
	{"all neighbours", "neighbour fd00:77::2", "ip neigh flush dev $a nud permanent; ip neigh flush dev $a; ip -6 neigh flush dev $a"},
	{"the rules", "rule", "nft flush table inet zipline"},
	{"the whole ruleset", "table inet zipline", "nft flush ruleset"},
	{"all map entries", "endpoint map entry", `for m in endpoints devices uplinks; do p=$(ls -d /sys/fs/bpf/zipline/*/v*)/$m
		bpftool -j map dump pinned $p | grep -o '"key":\[[^]]*]' | sed 's/"key":\[//; s/[]"]//g; s/,/ /g' | while read k; do bpftool map delete pinned $p key $k; done; done`},
}

// nested are the damages behind which others show, or with which others are mended:
// a dry run cannot tell.
var nested = []string{"the record", "all programs", "the table", "the whole ruleset", "ip_forward"}

func (w *steerWorld) damage(d damage, a, b *steerPod) {
	w.tb.Helper()
	vars := strings.NewReplacer("$ctl", w.path, "$a", a.device, "$b", b.device, "$4", a.v4.String())
	w.Node.MustRun(w.tb, "sh", "-ec", strings.ReplaceAll(vars.Replace(d.do), a.v4.String()+"}", "$4}"))
}

func TestRepairMakesRightWhatWasDestroyed(t *testing.T) {
	w := newSteerWorld(t)
	config := steerConfig(map[string]any{"slowPathMark": "0x10", "egressIP": "192.0.2.1", "macspoofchk": true})
	a := w.attach(config, true)
	// One cache for both: that of the first runtime.
	b := w.attachBy(a.runtime)
	cache := a.runtime.CacheDir()
	if found := w.repaired(cache); len(found) != 0 {
		t.Fatalf("repair of what is right changes %+v", found)
	}
	for _, d := range damages {
		t.Run(d.name, func(t *testing.T) {
			before := w.Node.Snapshot(t)
			w.damage(d, a, b)
			damaged := w.Node.Snapshot(t)
			would := w.repaired(cache, "--dry-run")
			if diff := damaged.Diff(w.Node.Snapshot(t)); len(diff) != 0 {
				t.Errorf("repair --dry-run changed the node:\n%s", strings.Join(diff, "\n"))
			}
			did := w.repaired(cache)
			named := false
			for _, r := range did {
				named = named || strings.HasPrefix(r.Object, d.object)
				if !r.Mended {
					t.Errorf("not mended: %+v", r)
				}
			}
			if !named {
				t.Errorf("repair names %+v, want %s", did, d.object)
			}
			if !slices.Equal(did, would) && !slices.Contains(nested, d.name) {
				t.Errorf("repair lists\n%+v\nand its dry run\n%+v", did, would)
			}
			w.wantOnce(would)
			w.wantOnce(did)
			if diff := before.Diff(w.Node.Snapshot(t), repairVolatile...); len(diff) != 0 {
				t.Errorf("the node differs from what it was:\n%s", strings.Join(diff, "\n"))
			}
			if again := w.repaired(cache); len(again) != 0 {
				t.Errorf("a second repair changes %+v", again)
			}
			for _, p := range []*steerPod{a, b} {
				if err := a.runtime.Check(p.Container, nil); err != nil {
					t.Errorf("CHECK of %s: %v", p.ID, err)
				}
			}
			w.wantTraffic(t, a, b)
		})
	}
}

// wantOnce checks that what the endpoints share is the node's, and listed once.
func (w *steerWorld) wantOnce(list []repairJSON) {
	w.tb.Helper()
	seen := map[string]bool{}
	for _, r := range list {
		shared := regexp.MustCompile(`^(table|chain|rule|uplink) |^route \S+/|^sysctl net/(ipv./(conf/(all|uplink0)|ip_)|netfilter)`).MatchString(r.Object)
		if seen[r.Object] && shared || shared != (r.Device == "") && r.Object != "programs and their pins" {
			w.tb.Errorf("%+v is listed twice, or is not whose it is", r)
		}
		seen[r.Object] = true
	}
}

// wantTraffic checks every way that a container's packets take.
func (w *steerWorld) wantTraffic(t *testing.T, a, b *steerPod) {
	t.Helper()
	for name, err := range map[string]error{
		"neighbour":      a.Ping(b.v4),
		"IPv6 neighbour": b.Ping(a.v6),
		"outside":        a.Ping(testrig.InternetIPv4),
		"from the node":  w.Node.Ping(a.v4),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRepairTakesTheConfigurationOfASibling(t *testing.T) {
	w := newSteerWorld(t)
	config := steerConfig(map[string]any{"slowPathMark": "0x10"})
	a := w.attach(config, true)
	b := w.attach(config, false) // in nobody's cache
	cache := a.runtime.CacheDir()
	before := w.Node.Snapshot(t)
	w.Node.MustRun(t, w.path, "unload", "--force")
	w.Node.MustRun(t, "nft", "delete", "table", "inet", "zipline")
	w.Node.MustRun(t, "ip", "link", "set", b.device, "alias", "somebody")

	// A sibling's configuration is that of the network.
	w.repaired(cache)
	if diff := before.Diff(w.Node.Snapshot(t), repairVolatile...); len(diff) != 0 {
		t.Errorf("the node differs from what it was:\n%s", strings.Join(diff, "\n"))
	}
	// A ruleset without these sets leaves them empty when it is replaced.
	w.Node.MustRun(t, "nft", "flush set inet zipline address4; flush set inet zipline address6")
	if found := w.repaired(cache); len(found) != 4 {
		t.Errorf("repair lists %+v, want both families' own address of two endpoints", found)
	}
	if diff := before.Diff(w.Node.Snapshot(t), repairVolatile...); len(diff) != 0 {
		t.Errorf("the node differs from what it was:\n%s", strings.Join(diff, "\n"))
	}
	w.wantTraffic(t, a, b)
}

// Without any configuration what follows from the attachment, the leases and the
// neighbours' entries is made again, and nothing else.
func TestRepairMakesUpNothing(t *testing.T) {
	w := newSteerWorld(t)
	config := steerConfig(map[string]any{"slowPathMark": "0x10", "ipMasq": false})
	a, b := w.attach(config, false), w.attach(config, false)
	nowhere := filepath.Join(t.TempDir(), "none")
	repair := func() (mended, stays []string) {
		t.Helper()
		out, err := w.ctl("repair", "--cache-dir", nowhere, "-o", "json")
		var list []repairJSON
		if jsonErr := json.Unmarshal([]byte(out), &list); jsonErr != nil {
			t.Fatalf("%v: %v\n%s", jsonErr, err, out)
		}
		for _, r := range list {
			if r.Mended {
				mended = append(mended, r.Object)
			} else {
				stays = append(stays, r.Object+": "+r.Reason)
			}
		}
		if err == nil {
			t.Error("exit code 0, though the configuration is not known")
		}
		return mended, stays
	}
	before := w.Node.Snapshot(t)
	if mended, _ := repair(); len(mended) != 0 {
		t.Errorf("repair of what is right changes %v", mended)
	}
	for _, d := range damages {
		switch d.name {
		case "a map entry", "programs on a veth", "a route", "a neighbour", "the table", "the alias", "forwarding of the veth", "the pins":
			w.damage(d, a, b)
		}
	}
	mended, stays := repair()
	if len(mended) < 6 || len(stays) != 2 || !strings.Contains(strings.Join(stays, " "), "segment and slowPathMark cannot be told") {
		t.Errorf("mended %v, stays %v", mended, stays)
	}
	// Whether a MAC is checked cannot be told: no packet is spared the checks.
	volatile := append(slices.Clone(repairVolatile), regexp.MustCompile(`^nft table inet zipline \| set address[46] \| element`))
	if diff := before.Diff(w.Node.Snapshot(t), volatile...); len(diff) != 0 {
		t.Errorf("the node differs from what it was:\n%s", strings.Join(diff, "\n"))
	}
	if mended, _ := repair(); len(mended) != 0 {
		t.Errorf("a second repair changes %v", mended)
	}
	// Who has an address by now is named.
	w.Node.MustRun(t, "ip", "route", "replace", a.v4.String(), "dev", b.device, "proto", "122", "scope", "link")
	if mended, stays := repair(); !strings.Contains(strings.Join(stays, " "), "in use by device "+b.device) {
		t.Errorf("mended %v, stays %v", mended, stays)
	}
	w.Node.MustRun(t, "ip", "route", "replace", a.v4.String(), "dev", a.device, "proto", "122", "scope", "link")
	// When no neighbour tells either, it says so and leaves it.
	w.damage(damages[0], a, b)
	b.Kill(t)
	w.Node.MustRun(t, "sh", "-c", "while ip link show dev "+b.device+" 2>/dev/null; do sleep 0.05; done")
	w.leftovers()
	if mended, stays := repair(); len(mended) != 0 || !strings.Contains(strings.Join(stays, " "), "no other endpoint of its network") {
		t.Errorf("mended %v, stays %v", mended, stays)
	}
}

// TestRepairTellsItsError does so beside what stays, which is exit code 3 alone.
func TestRepairTellsItsError(t *testing.T) {
	stays := []datapath.Repaired{{Object: "configuration", Wrong: "is not known"}}
	refused := errors.New("refused")
	for _, c := range []struct {
		found []datapath.Repaired
		err   error
		code  int
		rows  int
	}{
		{nil, nil, exitOK, 0}, {nil, refused, exitFailure, 0}, {stays, nil, exitFindings, 2}, {stays, refused, exitFailure, 2},
	} {
		var out, errs strings.Builder
		err := (&app{streams: streams{out: &out, err: &errs}}).printRepaired(c.found, false, c.err)
		if exitCode(err) != c.code || strings.Count(out.String(), "\n") != c.rows || c.code == exitOK && !strings.Contains(errs.String(), "nothing to do") {
			t.Errorf("%v, %v: exit code %d, %v, stdout %q, stderr %q", c.found, c.err, exitCode(err), err, out.String(), errs.String())
		}
	}
}
