// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"fmt"
	"reflect"
	"slices"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/nfnl"
)

// rawExpr is an expression as the kernel prints it.
type rawExpr struct {
	name string
	data []byte
}

// rules reads all rules of the table by chain, in their order. Handles and
// positions differ after every change and are left out. The kernel looks for
// the rest of a list by a count that includes rules of a transaction that is not
// committed, and so may list the last rules again (__nf_tables_dump_rules in
// nf_tables_api.c).
func (r *Ruleset) rules() (map[string][][]rawExpr, error) {
	messages, err := r.dump(newMessage(unix.NFT_MSG_GETRULE, 0, "list rules", tableName))
	if err != nil {
		return nil, err
	}
	all, seen := map[string][][]rawExpr{}, map[uint64]bool{}
	for _, m := range messages {
		var chain string
		var handle uint64
		var exprs []rawExpr
		err := nfnl.EachAttribute(m, func(ad *netlink.AttributeDecoder) {
			switch ad.Type() {
			case unix.NFTA_RULE_CHAIN:
				chain = ad.String()
			case unix.NFTA_RULE_HANDLE:
				handle = ad.Uint64()
			case unix.NFTA_RULE_EXPRESSIONS:
				ad.Nested(func(list *netlink.AttributeDecoder) error {
					for list.Next() {
						exprs = append(exprs, rawExpr{})
						list.Nested(exprs[len(exprs)-1].decode)
					}
					return nil
				})
			}
		})
		if err != nil {
			return nil, fmt.Errorf("decode rule: %w", err)
		}
		if !seen[handle] {
			seen[handle] = true
			all[chain] = append(all[chain], exprs)
		}
	}
	return all, nil
}

func (x *rawExpr) decode(ad *netlink.AttributeDecoder) error {
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_EXPR_NAME:
			x.name = ad.String()
		case unix.NFTA_EXPR_DATA:
			x.data = ad.Bytes()
		}
	}
	return nil
}

// compareRules reports the rules of a chain that are missing, changed, in
// another order, or not ours.
func compareRules(c chainSpec, is [][]rawExpr, found *CheckError) {
	object := "chain " + c.name
	matched := make([]bool, len(is))
	inOrder, complete := true, true
	for i, r := range c.rules {
		at := slices.IndexFunc(is, r.matches)
		if at < 0 {
			found.add(fmt.Sprintf("rule %q of %s", r.text, object), "is missing or changed", mendRules)
			complete = false
			continue
		}
		matched[at] = true
		inOrder = inOrder && at == i
	}
	if foreign := slices.Index(matched, false); foreign >= 0 {
		found.add(object, fmt.Sprintf("has a rule that is not zipline's (number %d)", foreign+1), mendRules)
	} else if complete && !inOrder {
		found.add(object, "has its rules in another order", mendRules)
	}
}

// matches tells whether the kernel's rule is r. The values of counters do not
// matter.
func (r rule) matches(is []rawExpr) bool {
	return slices.EqualFunc(r.exprs, is, sameExpr)
}

func sameExpr(want expr.Any, is rawExpr) bool {
	if is.name != exprName(want) {
		return false
	}
	if _, ok := want.(*expr.Counter); ok {
		return true
	}
	have := reflect.New(reflect.TypeOf(want).Elem()).Interface().(expr.Any)
	if err := expr.Unmarshal(unix.NFPROTO_INET, is.data, have); err != nil {
		return false
	}
	return reflect.DeepEqual(want, have)
}

// exprName is the kernel's name of the kind of an expression.
func exprName(x expr.Any) string {
	var raw rawExpr
	ad, err := netlink.NewAttributeDecoder(marshalExpr(x))
	if err != nil {
		return ""
	}
	_ = raw.decode(ad) // never fails
	return raw.name
}
