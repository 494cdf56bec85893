// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/zipline-cni/zipline/internal/testrig"
)

// staysOnNode is all that may differ between a node that never had a container
// and one whose last container is gone, each with the reason.
var staysOnNode = []*regexp.Regexp{
	// The table of this version without elements: it is the node's, and the next
	// ADD needs it. Nothing matches while its sets are empty.
	regexp.MustCompile(`^nft table inet zipline( \| (set|map|chain) [^|]+( \| [^|]+)?)?$`),
	// Programs and maps are loaded once for all containers.
	regexp.MustCompile(`^file /sys/fs/bpf/zipline(/|$)`),
	// Lock files, and what is loaded.
	regexp.MustCompile(`^file /run/zipline(/[^ ]*)?( "")?$`),
	regexp.MustCompile(`^file /run/zipline/\d+/programs "`),
	// host-local's directory, its lock and its place in the round robin; beside
	// them zipline's index without owners.
	regexp.MustCompile(`^file (/var/lib/cni/networks|/run/ipam-state)(/[^/ ]+(/lock ""|/last_reserved_ip\.\d+ .*)?)?$`),
	regexp.MustCompile(`^file (/var/lib/cni/networks|/run/ipam-state)/[^/ ]+/\.zipline(/owners|/state ".*)?$`),
	// A router that stopped to be one would cut off others.
	regexp.MustCompile(`^sysctl ipv4/ip_forward = `),
	regexp.MustCompile(`^sysctl ipv[46]/conf/[^/]+/(mc_)?forwarding = `),
	// Follow from forwarding: the kernel sets them along with it.
	regexp.MustCompile(`^route anycast \S+ dev uplink0 `),
	regexp.MustCompile(`^sysctl ipv4/conf/[^/]+/accept_redirects = `),
	// Design section 3: conntrack's view of a window goes stale.
	regexp.MustCompile(`^sysctl netfilter/nf_conntrack_tcp_(be_liberal|ignore_invalid_rst) = `),
}

// elementOf finds nft elements, which none of staysOnNode may excuse.
var elementOf = regexp.MustCompile(`^[-+] nft .*\| element `)

// wantNothingLeft compares the node with what it was before its containers.
func (top *topology) wantNothingLeft(tb testing.TB, before testrig.Snapshot) {
	tb.Helper()
	after := top.Node.Snapshot(tb)
	diff := before.Diff(after, staysOnNode...)
	for _, line := range before.Diff(after) {
		if elementOf.MatchString(line) && strings.Contains(line, "table inet zipline") {
			diff = append(diff, line)
		}
	}
	if len(diff) > 0 {
		tb.Errorf("the node differs:\n%s", strings.Join(diff, "\n"))
	}
}

// wantUnchanged compares the node with what it was: nothing may differ.
func (top *topology) wantUnchanged(tb testing.TB, before testrig.Snapshot) {
	tb.Helper()
	if diff := before.Diff(top.Node.Snapshot(tb)); len(diff) > 0 {
		tb.Errorf("the node changed:\n%s", strings.Join(diff, "\n"))
	}
}
