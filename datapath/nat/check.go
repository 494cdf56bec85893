// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// How to mend what Check finds.
const (
	mendElement = "`ziplinectl repair`, or delete and add the attachment again"
	mendTable   = "the next ADD on this node installs the rules; then delete and add the attachment again"
	mendRules   = "`nft flush table inet " + TableName +
		"` leaves the elements in place, and the next ADD on this node installs the rules"
)

// Problem is one thing that Check found.
type Problem struct {
	Object string // a table, chain, rule or element
	Wrong  string // what is wrong with it
	Mend   string // how to mend it
}

// Error implements error.
func (p Problem) Error() string {
	return fmt.Sprintf("%s %s; to mend: %s", p.Object, p.Wrong, p.Mend)
}

// CheckError is what Check returns when the ruleset is not as it should be.
type CheckError struct{ Problems []Problem }

// Error implements error.
func (e *CheckError) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

func (e *CheckError) add(object, wrong, mend string) {
	e.Problems = append(e.Problems, Problem{object, wrong, mend})
}

// Check compares the whole ruleset, and the elements that Add would make for an
// endpoint, with what the kernel has. It returns nil when nothing is missing or
// changed, a *CheckError that names each difference otherwise.
func (r *Ruleset) Check(o Owner, sources []Source, opts Options) error {
	if err := validate(o, sources, opts); err != nil {
		return fmt.Errorf("check elements of %s: %w", o.Device, err)
	}
	var found *CheckError
	err := retry(func() (err error) {
		found, err = r.check(o, sources, opts)
		return err
	})
	if err != nil {
		return fmt.Errorf("check elements of %s: %w", o.Device, err)
	}
	if len(found.Problems) > 0 {
		return found
	}
	return nil
}

func (r *Ruleset) check(o Owner, sources []Source, opts Options) (*CheckError, error) {
	found := &CheckError{}
	table := newMessage(unix.NFT_MSG_GETTABLE, 0, "look up table", tableName)
	start, err := r.look(table)
	if err != nil {
		return nil, err
	}
	if start.replies[0].missing() {
		found.Problems = append(found.Problems, missingTable)
		return found, r.unchanged(start.generation)
	}
	if err := r.checkTable(found); err != nil {
		return nil, err
	}
	v, err := r.lookEndpoint(o, sources, opts)
	if err != nil && !errors.Is(err, ErrNoTable) {
		return nil, err
	}
	if v.broken == nil {
		v.checkSlots(o, found)
		err = r.checkRectangles(v, found)
	} else if err = nil; len(found.Problems) == 0 {
		return nil, &conflict{v.broken} // the lists say otherwise: see confirm
	}
	return found, errors.Join(err, r.unchanged(start.generation))
}

// checkTable compares chains, sets and rules.
func (r *Ruleset) checkTable(found *CheckError) error {
	is, err := r.content()
	if err != nil {
		return err
	}
	for _, s := range sets {
		if have, ok := is.sets[s.name]; !ok {
			found.add("set "+s.name, "is missing", mendTable)
		} else if !s.same(have) {
			found.add("set "+s.name, "has another type", mendTable)
		}
	}
	rules, err := r.rules()
	if err != nil {
		return err
	}
	for _, c := range chains() {
		have, ok := is.chains[c.name]
		switch {
		case !ok && c.name == versionChain:
			found.add("table inet "+TableName, "is of another version (no chain "+c.name+")", mendTable)
			continue
		case !ok:
			found.add("chain "+c.name, "is missing", mendRules)
			continue
		case !c.sameHook(have):
			found.add("chain "+c.name, "has another type, hook or priority", mendTable)
		case c.isBase() && have.policy != uint32(nftables.ChainPolicyAccept):
			found.add("chain "+c.name, "has policy drop in place of accept", mendRules)
		}
		compareRules(c, rules[c.name], found)
	}
	strangeSets, strangeChains := is.strangers()
	for _, name := range strangeSets {
		found.add("set "+name, "is not zipline's", mendRules)
	}
	for _, name := range strangeChains {
		found.add("chain "+name, "is not zipline's", mendRules)
	}
	return nil
}

func (v *view) checkSlots(o Owner, found *CheckError) {
	for i, s := range v.slots {
		is := v.found[i]
		object := fmt.Sprintf("element %s of %s", s.element.about, s.set.name)
		switch {
		case is == nil && s.wanted:
			found.add(object, "is missing", mendElement)
		case is == nil || s.wanted && s.matches(*is):
		case parseOwner(is.comment).Device != o.Device:
			if s.wanted {
				found.add(object, fmt.Sprintf("belongs to %q", is.comment), mendElement)
			}
		case !s.wanted:
			found.add(object, "is there although the configuration does not ask for it", mendElement)
		case !bytes.Equal(is.data, s.element.data):
			found.add(object, "translates to "+addressText(is.data), mendElement)
		default:
			found.add(object, fmt.Sprintf("has the comment %q", is.comment), mendElement)
		}
	}
}

// checkRectangles tells apart sets whose rectangles are there in parts (because
// of another network's) from those that lack some.
func (r *Ruleset) checkRectangles(v *view, found *CheckError) error {
	for _, set := range subnetSets {
		if !v.incomplete[set] {
			continue
		}
		present, err := r.rectangles(set)
		if err != nil {
			return err
		}
		for _, missing := range uncovered(v.wanted[set], present) {
			found.add(fmt.Sprintf("element %s of %s", missing.element().about, set.name),
				"is missing", mendElement)
		}
	}
	return nil
}

func addressText(data []byte) string {
	if addr, ok := netip.AddrFromSlice(data); ok {
		return addr.String()
	}
	return fmt.Sprintf("%x", data)
}
