// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"net/netip"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/testutil"
)

// enterNetns moves the test's goroutine to a new network namespace. The thread
// is never unlocked: it dies with the goroutine, and the namespace with it.
func enterNetns(tb testing.TB) {
	tb.Helper()
	testutil.RequireRoot(tb)
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		tb.Fatalf("unshare network namespace: %v", err)
	}
}

// newRuleset enters a new network namespace and installs the table there.
func newRuleset(tb testing.TB) *Ruleset {
	tb.Helper()
	enterNetns(tb)
	r := mustOpen(tb)
	if err := r.Install(); err != nil {
		tb.Fatal(err)
	}
	return r
}

func mustOpen(tb testing.TB) *Ruleset {
	tb.Helper()
	r, err := Open()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := r.Close(); err != nil {
			tb.Error(err)
		}
	})
	return r
}

func mustAdd(tb testing.TB, r *Ruleset, o Owner, opts Options, sources ...Source) {
	tb.Helper()
	if err := r.Add(o, sources, opts); err != nil {
		tb.Fatal(err)
	}
}

func mustRemove(tb testing.TB, r *Ruleset, o Owner, addrs ...netip.Addr) {
	tb.Helper()
	if err := r.Remove(o, addrs); err != nil {
		tb.Fatal(err)
	}
}

// nft runs the nft program in the thread's namespace.
func nft(tb testing.TB, args ...string) string {
	tb.Helper()
	testutil.RequireProgram(tb, "nft")
	out, err := exec.Command("nft", args...).CombinedOutput()
	if err != nil {
		tb.Fatalf("nft %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// listing is the table as nft prints it.
func listing(tb testing.TB) string {
	tb.Helper()
	return nft(tb, "list", "table", "inet", TableName)
}

// owner returns the owner of an invented endpoint of a network.
func owner(device, network string) Owner {
	return Owner{Device: device, Network: network, ContainerID: "c-" + device, IfName: "eth0"}
}

// source returns a masqueraded source from "address/length" of its subnet.
func source(prefix string) Source {
	p := netip.MustParsePrefix(prefix)
	return Source{Address: p.Addr(), Subnet: p.Masked()}
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func prefixes(s ...string) []netip.Prefix {
	all := make([]netip.Prefix, len(s))
	for i := range s {
		all[i] = netip.MustParsePrefix(s[i])
	}
	return all
}
