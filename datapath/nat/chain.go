// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"sync"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// version names this version of the ruleset: the start of the SHA-256 of
// testdata/empty.nft without this name. A test computes it. It must change with
// every change of chains, rules or sets.
const version = "94086a9a04b5"

// versionChain is an empty chain whose presence says which ruleset this is.
const versionChain = "version-" + version

// priorityBeforeDefrag puts the source check before the reassembly of
// fragments (-400), so that a forged fragment never meets its victim's.
const priorityBeforeDefrag = -450

// chainSpec is a chain of the table. Only base chains have a type and a hook;
// their policy is accept: nothing is dropped but by a rule below.
type chainSpec struct {
	name     string
	kind     nftables.ChainType
	hook     nftables.ChainHook
	priority nftables.ChainPriority
	comment  string
	rules    []rule
}

// rule is a static rule.
type rule struct {
	text    string // in nft syntax, without counter values and comment
	comment string
	exprs   []expr.Any
}

// chains are all chains of the table, in the order of the listing.
var chains = sync.OnceValue(func() []chainSpec {
	return []chainSpec{
		{name: versionChain, comment: "the ruleset's version; zipline replaces other versions"},
		{
			name: "prerouting", kind: nftables.ChainTypeFilter,
			hook: *nftables.ChainHookPrerouting, priority: priorityBeforeDefrag,
			rules: preroutingRules(),
		},
		{name: "translate", rules: translateRules()},
		{
			name: "postrouting", kind: nftables.ChainTypeNAT,
			hook: *nftables.ChainHookPostrouting, priority: *nftables.ChainPriorityNATSource,
			rules: sourceRules("translate"),
		},
		{name: "untranslated", rules: untranslatedRules()},
		{name: "invalid", rules: sourceRules("untranslated")},
		{
			name: "forward", kind: nftables.ChainTypeFilter,
			hook: *nftables.ChainHookForward, priority: *nftables.ChainPriorityFilter,
			rules: forwardRules(),
		},
	}
})

func (c chainSpec) isBase() bool { return c.kind != "" }

// uses returns what the kernel counts as uses of a chain: its rules, and the
// rules of all chains that go to it.
func uses(all []chainSpec, name string) uint32 {
	var n uint32
	for _, c := range all {
		if c.name == name {
			n += uint32(len(c.rules))
		}
		for _, r := range c.rules {
			for _, e := range r.exprs {
				if v, ok := e.(*expr.Verdict); ok && v.Chain == name {
					n++
				}
			}
		}
	}
	return n
}
