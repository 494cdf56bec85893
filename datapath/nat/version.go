// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/nfnl"
)

// chainState is a chain as the kernel has it.
type chainState struct {
	name, table    string
	kind           nftables.ChainType
	hook, priority uint32
	policy         uint32
	uses           uint32 // rules, and rules of other chains that go here
}

func getChain(name string) message {
	return newMessage(unix.NFT_MSG_GETCHAIN, 0, "look up chain "+name, func(e *attributes) {
		tableName(e)
		e.String(unix.NFTA_CHAIN_NAME, name)
	})
}

func decodeChain(m netlink.Message) (c chainState, err error) {
	err = nfnl.EachAttribute(m, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case unix.NFTA_CHAIN_TABLE:
			c.table = ad.String()
		case unix.NFTA_CHAIN_NAME:
			c.name = ad.String()
		case unix.NFTA_CHAIN_TYPE:
			c.kind = nftables.ChainType(ad.String())
		case unix.NFTA_CHAIN_POLICY:
			c.policy = ad.Uint32()
		case unix.NFTA_CHAIN_USE:
			c.uses = ad.Uint32()
		case unix.NFTA_CHAIN_HOOK:
			ad.Nested(func(h *netlink.AttributeDecoder) error {
				for h.Next() {
					switch h.Type() {
					case unix.NFTA_HOOK_HOOKNUM:
						c.hook = h.Uint32()
					case unix.NFTA_HOOK_PRIORITY:
						c.priority = h.Uint32()
					}
				}
				return nil
			})
		}
	})
	if err != nil {
		return c, fmt.Errorf("decode chain: %w", err)
	}
	return c, nil
}

// sameHook tells whether the chain in the kernel is the one specified, but for
// its policy and rules: those can be changed in place.
func (c chainSpec) sameHook(is chainState) bool {
	if !c.isBase() {
		return is.kind == ""
	}
	return is.kind == c.kind && is.hook == uint32(c.hook) && is.priority == uint32(c.priority)
}

// chainLookups asks for every chain of the ruleset. Together they prove that the
// table is there and of this version, and that no rule was flushed, in the
// round trip that is needed anyway.
func chainLookups() []message {
	var requests []message
	for _, c := range chains() {
		requests = append(requests, getChain(c.name))
	}
	return requests
}

// errUses is an ErrNoTable that is not certain: see confirm.
var errUses = fmt.Errorf("%w", ErrNoTable)

// checkChains reads the replies to chainLookups. It returns an error that is
// ErrNoTable for what Install would mend; a rule too many is not.
func checkChains(replies []reply) error {
	all := chains()
	for i, c := range all {
		if replies[i].missing() {
			return fmt.Errorf("%w: no chain %s", ErrNoTable, c.name)
		}
		is, err := decodeChain(replies[i].Message)
		if err != nil {
			return err
		}
		if !c.sameHook(is) || c.isBase() && is.policy != uint32(nftables.ChainPolicyAccept) {
			return fmt.Errorf("%w: chain %s has another type, hook, priority or policy", ErrNoTable, c.name)
		}
		if want := uses(all, c.name); is.uses < want {
			return fmt.Errorf("%w: chain %s has %d uses of %d", errUses, c.name, is.uses, want)
		}
	}
	return nil
}

// confirm returns a conflict in place of an error of checkChains if no rule is
// missing. The kernel counts uses when it prepares a transaction: before it
// commits, and even if it never does (nf_tables_delrule_deactivate in
// nf_tables_api.c). So while another process replaces the rules, or only tries
// to, the counts fall short although all rules are in force. The list of rules
// has what is in force, but takes much longer than the counts.
func (r *Ruleset) confirm(broken error) error {
	if !errors.Is(broken, errUses) {
		return broken
	}
	is, err := r.rules()
	if err != nil {
		return err
	}
	for _, c := range chains() {
		for _, rule := range c.rules {
			if !slices.ContainsFunc(is[c.name], rule.matches) {
				return broken
			}
		}
	}
	return &conflict{broken}
}
