// SPDX-License-Identifier: Apache-2.0

package prog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/testutil"
)

const marks = "testdata/marks.o"

// enter moves the test to network and mount namespaces of its own, with a new
// bpffs and a veth pair far0-near0 that is up at both ends.
func enter(tb testing.TB) {
	tb.Helper()
	testutil.RequireRoot(tb)
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	must(tb, unix.Unshare(unix.CLONE_NEWNET|unix.CLONE_NEWNS))
	must(tb, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	must(tb, unix.Mount("bpf", bpffs, "bpf", 0, "mode=0700"))
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "near0"
	must(tb, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "far0"}))
	for _, name := range []string{"lo", "near0", "far0"} {
		l, err := netlink.LinkByName(name)
		must(tb, err)
		must(tb, netlink.LinkSetUp(l))
	}
}

// requireTCX skips a test that is about TCX on a kernel without.
func requireTCX(tb testing.TB) {
	tb.Helper()
	l, err := netlink.LinkByName("lo")
	must(tb, err)
	_, err = listTCX(l.Attrs(), Ingress)
	testutil.RequireKernel(tb, "tcx", err)
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func marker(program string) Options {
	return Options{Object: Object{File: marks, Program: program}, Device: "near0", Direction: Ingress}
}

func mustAttach(tb testing.TB, o Options) *Attached {
	tb.Helper()
	a, _, err := Attach(o)
	must(tb, err)
	return a
}

// markOf sends a packet from far0 to near0 and returns the mark that the packet
// has after all programs, as netfilter sees it.
func markOf(tb testing.TB) string {
	tb.Helper()
	run(tb, "nft", `add table inet t { set seen { type mark; flags dynamic; size 64; }; chain c { type filter hook prerouting priority 0; iifname "near0" udp dport 9 add @seen { meta mark }; } ; }`)
	defer run(tb, "nft", "delete table inet t")
	near, err := net.InterfaceByName("near0")
	must(tb, err)
	far, err := net.InterfaceByName("far0")
	must(tb, err)
	send(tb, far, near)
	for range 100 {
		out := run(tb, "nft", "list set inet t seen")
		if m := regexp.MustCompile(`elements = \{ (\S+)`).FindStringSubmatch(out); m != nil {
			return strings.TrimLeft(strings.TrimPrefix(m[1], "0x"), "0")
		}
		time.Sleep(5 * time.Millisecond)
	}
	return "nothing"
}

func send(tb testing.TB, far, near *net.Interface) {
	tb.Helper()
	udp := []byte{0, 9, 0, 9, 0, 8, 0, 0}
	ip := []byte{0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 2, 192, 0, 2, 1}
	sum := uint32(0)
	for i := 0; i < len(ip); i += 2 {
		sum += uint32(ip[i])<<8 | uint32(ip[i+1])
	}
	sum = sum>>16 + sum&0xffff
	ip[10], ip[11] = byte(^sum>>8), byte(^sum)
	frame := append(append(append(append([]byte{}, near.HardwareAddr...), far.HardwareAddr...), 8, 0), append(ip, udp...)...)
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	must(tb, err)
	defer unix.Close(fd)
	must(tb, unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: far.Index}))
}

func run(tb testing.TB, args ...string) string {
	tb.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		tb.Fatalf("%v: %v\n%s", args, err, out)
	}
	return string(out)
}

func TestTheObjectIsThatOfItsSource(t *testing.T) {
	if _, err := exec.LookPath("clang-14"); err != nil {
		t.Skip("no clang-14 to compare with")
	}
	built := filepath.Join(t.TempDir(), "marks.o")
	run(t, "clang-14", "-target", "bpfel", "-mcpu=v3", "-O2", "-Wall", "-Werror", "-c", "testdata/marks.c", "-o", built)
	want, err := os.ReadFile(built)
	must(t, err)
	have, err := os.ReadFile(marks)
	must(t, err)
	if !bytes.Equal(have, want) {
		t.Errorf("%s is not what its source gives: run the command of this test", marks)
	}
}

func TestPacketsMeetProgramsInTheOrderThatWasAskedFor(t *testing.T) {
	for _, clsact := range []bool{false, true} {
		for _, c := range []struct {
			where  Where
			anchor string
			want   string
		}{
			{"", "", "abc"}, {Last, "", "abc"}, {First, "", "cab"}, {Before, "mark_b", "acb"}, {After, "mark_a", "acb"}, {After, "mark_b", "abc"}, {Before, "mark_a", "cab"},
		} {
			t.Run(fmt.Sprintf("clsact %v %s %s", clsact, c.where, c.anchor), func(t *testing.T) {
				enter(t)
				if !clsact {
					requireTCX(t)
				}
				a, b, o := marker("mark_a"), marker("mark_b"), marker("mark_c")
				a.Clsact, b.Clsact, o.Clsact = clsact, clsact, clsact
				if have := markOf(t); have != "" {
					t.Fatalf("a packet has mark %q before anything is attached", have)
				}
				mustAttach(t, a)
				mustAttach(t, b)
				o.Where, o.Anchor = c.where, c.anchor
				attached := mustAttach(t, o)
				if have := markOf(t); have != c.want {
					t.Errorf("packets meet the programs in order %q, want %q", have, c.want)
				}
				if want := strings.Index(c.want, "c") + 1; attached.Position != want {
					t.Errorf("it says position %d, want %d", attached.Position, want)
				}
				_, err := Detach("near0", "", "mark_c")
				must(t, err)
				if have := markOf(t); have != "ab" {
					t.Errorf("after detach packets meet %q, want ab", have)
				}
				_, err = Detach("near0", "", "mark_c")
				if !errors.Is(err, ErrNotAttached) {
					t.Errorf("detach again: %v", err)
				}
			})
		}
	}
}

func TestWhereThereIsNoTCXAFilterIsAttached(t *testing.T) {
	enter(t)
	query := queryPrograms
	defer func() { queryPrograms = query }()
	queryPrograms = func(link.QueryOptions) (*link.QueryResult, error) { return nil, unix.EINVAL }
	mustAttach(t, marker("mark_a"))
	o := marker("mark_b")
	o.Where, o.Anchor = Before, "mark_a"
	if a := mustAttach(t, o); a.Hook != HookClsact || a.Position != 1 {
		t.Errorf("attached as %+v, want the first filter", a)
	}
	if have := markOf(t); have != "ba" {
		t.Errorf("packets meet %q, want ba", have)
	}
	if filters := run(t, "tc", "filter", "show", "dev", "near0", "ingress"); strings.Count(filters, "direct-action") != 2 {
		t.Errorf("tc shows %q, want two filters", filters)
	}
	o.Pin = "watch"
	if _, _, err := Attach(o); !errors.Is(err, errNoTCX) {
		t.Errorf("attach with a pin: %v, want %v", err, errNoTCX)
	}
}

func TestAnAnchorMayBeAnID(t *testing.T) {
	enter(t)
	requireTCX(t)
	first := mustAttach(t, marker("mark_a"))
	mustAttach(t, marker("mark_a"))
	o := marker("mark_b")
	o.Where, o.Anchor = After, "mark_a"
	if _, _, err := Attach(o); !errors.Is(err, ErrAnchor) || !strings.Contains(err.Error(), "several") {
		t.Errorf("attach after one of two of a name: %v", err)
	}
	o.Anchor = fmt.Sprint(first.ID)
	mustAttach(t, o)
	if have := markOf(t); have != "aba" {
		t.Errorf("packets meet %q, want aba", have)
	}
	o.Anchor = "nobody"
	if _, _, err := Attach(o); !errors.Is(err, ErrAnchor) || !strings.Contains(err.Error(), "mark_a (") {
		t.Errorf("attach after nobody: %v, want the names of those that are there", err)
	}
	if _, err := Detach("near0", Ingress, "mark_a"); err == nil || !strings.Contains(err.Error(), "by its id") {
		t.Errorf("detach one of two of a name: %v", err)
	}
}

func TestAPinnedLinkIsReplacedInItsPlace(t *testing.T) {
	enter(t)
	requireTCX(t)
	o := marker("mark_a")
	o.Pin = "watch/first"
	a := mustAttach(t, o)
	if a.LinkID == 0 || a.Pin != "/sys/fs/bpf/watch/first" {
		t.Errorf("attached as %+v, want a pinned link", a)
	}
	mustAttach(t, marker("mark_b"))
	o.Program = "mark_c"
	c, replaced, err := Attach(o)
	must(t, err)
	if replaced != a.ID || c.LinkID != a.LinkID {
		t.Errorf("replaced %d by %+v, want %d in the same link", replaced, c, a.ID)
	}
	if have := markOf(t); have != "cb" {
		t.Errorf("packets meet %q, want cb", have)
	}
	o.Direction = Egress
	if _, _, err := Attach(o); !errors.Is(err, ErrPin) {
		t.Errorf("attach to the pin of another side: %v", err)
	}
	_, err = Detach("near0", "", "mark_c")
	must(t, err)
	if _, err := os.Stat(a.Pin); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the pin is left: %v", err)
	}
}

func TestThePinOfADeviceThatIsGoneIsTakenOver(t *testing.T) {
	enter(t)
	requireTCX(t)
	o := marker("mark_a")
	o.Pin, o.Device = "watch", "far0"
	mustAttach(t, o)
	l, err := netlink.LinkByName("far0")
	must(t, err)
	must(t, netlink.LinkDel(l))
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "near0"
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "far0"}))
	if a := mustAttach(t, o); a.Pin == "" {
		t.Errorf("attached as %+v, want a pin", a)
	}
}

func TestOnlyThePinOfADeviceThatIsGoneIsSevered(t *testing.T) {
	enter(t)
	requireTCX(t)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "gone0"
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "gone1"}))
	for pin, device := range map[string]string{"lives": "far0", "dies": "gone0"} {
		o := marker("mark_a")
		o.Pin, o.Device = pin, device
		mustAttach(t, o)
	}
	if paths, err := Severed(); err != nil || len(paths) != 0 {
		t.Errorf("severed while both devices are there: %v, %v", paths, err)
	}
	l, err := netlink.LinkByName("gone0")
	must(t, err)
	must(t, netlink.LinkDel(l))
	paths, err := Severed()
	if want := bpffs + "/dies"; err != nil || len(paths) != 1 || paths[0] != want {
		t.Fatalf("severed: %v, %v, want %s", paths, err, want)
	}
	for _, pin := range []string{"lives", "dies", "dies"} {
		must(t, RemoveSevered(filepath.Join(bpffs, pin)))
	}
	for pin, want := range map[string]bool{"lives": true, "dies": false} {
		if _, err := os.Stat(filepath.Join(bpffs, pin)); (err == nil) != want {
			t.Errorf("pin %s: %v", pin, err)
		}
	}
}

func TestErrorsSayWhatIsWrong(t *testing.T) {
	enter(t)
	change := func(f func(*Options)) Options {
		o := marker("mark_a")
		f(&o)
		return o
	}
	broken := filepath.Join(t.TempDir(), "broken.o")
	must(t, os.WriteFile(broken, []byte("no ELF"), 0o600))
	for _, c := range []struct {
		name string
		o    Options
		want string
	}{
		{"no such file", change(func(o *Options) { o.File = "nowhere.o" }), "nowhere.o"},
		{"not an object", change(func(o *Options) { o.File = broken }), "broken.o"},
		{"no such program", change(func(o *Options) { o.Program = "nobody" }), `mark_b (section "tc")`},
		{"several programs", change(func(o *Options) { o.Program = ""; o.Section = "tc" }), "several programs fit"},
		{"another kind", change(func(o *Options) { o.Program = "wrong_kind" }), `section "xdp" makes wrong_kind a XDP program`},
		{"no kind", change(func(o *Options) { o.Program = "no_kind" }), `section "nonsense" does not say`},
		{"refused", change(func(o *Options) { o.Program = "refused" }), "the verifier refuses refused"},
		{"no device", change(func(o *Options) { o.Device = "nosuch0" }), "there is no device nosuch0"},
		{"a pin with a dot", change(func(o *Options) { o.Pin = "a.b" }), "no dot"},
		{"a pin outside", change(func(o *Options) { o.Pin = "/tmp/pin" }), "no bpffs here"},
		{"a pin with clsact", change(func(o *Options) { o.Pin, o.Clsact = "p", true }), "no link to pin"},
	} {
		a, _, err := Attach(c.o)
		if err == nil || a != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error with %q", c.name, err, c.want)
		}
	}
	if list, err := List(""); err != nil || len(list) != 0 {
		t.Errorf("after nothing but errors there are %v (%v)", list, err)
	}
	if _, err := os.Stat(bpffs + "/p"); err == nil {
		t.Error("an error left a pin")
	}
}

func TestAVerifierLogHasBothEndsOfTheStory(t *testing.T) {
	enter(t)
	log, err := Object{File: marks, Program: "mark_a"}.Verify()
	if err != nil || !strings.Contains(log, "processed") {
		t.Errorf("log %q (%v), want the verifier's", log, err)
	}
	log, err = Object{File: marks, Program: "refused"}.Verify()
	if err == nil || !strings.Contains(log, "outside of the packet") {
		t.Errorf("log %q (%v), want a refusal", log, err)
	}
}

func TestShowTellsWhatAProgramDoes(t *testing.T) {
	enter(t)
	requireTCX(t)
	a := mustAttach(t, marker("mark_a"))
	d, err := Show("mark_a")
	must(t, err)
	if d.ID != a.ID || d.Tag != a.Tag || d.Type != "SchedCLS" || len(d.AttachedTo) != 1 || !strings.Contains(strings.Join(d.Instructions, "\n"), "Exit") {
		t.Errorf("details %+v of %+v", d, a)
	}
	if age := time.Since(d.Loaded); age < 0 || age > time.Minute {
		t.Errorf("loaded %v ago", age)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- d.Measure(ctx, time.Hour) }()
	time.Sleep(100 * time.Millisecond)
	markOf(t)
	cancel()
	must(t, <-done)
	if d.RunCount == 0 || d.RunTime == 0 {
		t.Errorf("measured %d runs in %v, want some", d.RunCount, d.RunTime)
	}
	if _, err := Show("nobody-at-all"); !errors.Is(err, ErrNoProgram) {
		t.Errorf("show nobody: %v", err)
	}
}
