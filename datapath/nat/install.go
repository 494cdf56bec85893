// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/nfnl"
)

// Install creates the table, or replaces the one that is there by this version's
// and keeps its elements. It is one transaction: no packet meets a table without
// rules or elements. Rules that others added to the table are gone afterwards.
// Installing twice changes nothing. The caller holds the node's lock, so that
// the work is not done twice.
func (r *Ruleset) Install() error {
	if err := retry(r.install); err != nil {
		return fmt.Errorf("install table inet %s: %w", TableName, err)
	}
	return nil
}

func (r *Ruleset) install() error {
	start, err := r.look(newMessage(unix.NFT_MSG_GETTABLE, 0, "look up table", tableName))
	if err != nil {
		return err
	}
	if start.replies[0].missing() {
		return r.commit(start.generation, create())
	}
	is, err := r.content()
	if err != nil {
		return err
	}
	if is.compatible() {
		return r.commit(start.generation, is.replaceRules())
	}
	batch, err := r.rebuild(is)
	if err != nil {
		return err
	}
	return r.commit(start.generation, batch)
}

// create returns the messages that make the whole table.
func create() []message {
	batch := []message{newTable()}
	for _, s := range sets {
		batch = append(batch, newSet(s))
	}
	for _, c := range chains() {
		batch = append(batch, newChain(c))
	}
	return append(batch, allRules()...)
}

func allRules() []message {
	var batch []message
	for _, c := range chains() {
		for _, rule := range c.rules {
			batch = append(batch, newRule(c, rule))
		}
	}
	return batch
}

// content is what the table has, but for rules and elements.
type content struct {
	chains map[string]chainState
	sets   map[string]setState
}

func (r *Ruleset) content() (*content, error) {
	is := &content{chains: map[string]chainState{}, sets: map[string]setState{}}
	messages, err := r.dump(newMessage(unix.NFT_MSG_GETCHAIN, 0, "list chains", func(*attributes) {}))
	if err != nil {
		return nil, err
	}
	for _, m := range messages {
		c, err := decodeChain(m)
		if err != nil {
			return nil, err
		}
		if c.table == TableName {
			is.chains[c.name] = c
		}
	}
	if messages, err = r.dump(newMessage(unix.NFT_MSG_GETSET, 0, "list sets", tableName)); err != nil {
		return nil, err
	}
	for _, m := range messages {
		s, err := decodeSet(m)
		if err != nil {
			return nil, err
		}
		is.sets[s.name] = s
	}
	return is, nil
}

// compatible tells whether every chain and set that is there and ours can stay.
func (is *content) compatible() bool {
	for _, c := range chains() {
		if have, ok := is.chains[c.name]; ok && !c.sameHook(have) {
			return false
		}
	}
	for _, s := range sets {
		if have, ok := is.sets[s.name]; ok && !s.same(have) {
			return false
		}
	}
	return true
}

// strangers returns the names of sets and chains that are not of this version.
// Anonymous sets are not among them: they come and go with their rules.
func (is *content) strangers() (strangeSets, strangeChains []string) {
	for name, s := range is.sets {
		known := slices.ContainsFunc(sets, func(s *setSpec) bool { return s.name == name })
		if !known && s.flags&unix.NFT_SET_ANONYMOUS == 0 {
			strangeSets = append(strangeSets, name)
		}
	}
	for name := range is.chains {
		if !slices.ContainsFunc(chains(), func(c chainSpec) bool { return c.name == name }) {
			strangeChains = append(strangeChains, name)
		}
	}
	slices.Sort(strangeSets)
	slices.Sort(strangeChains)
	return strangeSets, strangeChains
}

// replaceRules keeps the sets with their elements, and replaces all rules. The
// kernel switches the rules of all chains at once.
func (is *content) replaceRules() []message {
	batch := []message{deleteRules()}
	strangeSets, strangeChains := is.strangers()
	for _, name := range strangeSets { // first: a map may refer to a chain
		batch = append(batch, deleteSet(name))
	}
	for _, name := range strangeChains {
		batch = append(batch, deleteChain(name))
	}
	for _, s := range sets {
		if _, ok := is.sets[s.name]; !ok {
			batch = append(batch, newSet(s))
		}
	}
	for _, c := range chains() {
		batch = append(batch, newChain(c)) // an existing one gets its policy back
	}
	return append(batch, allRules()...)
}

// rebuild deletes the table, makes it again, and copies those elements whose set
// still has the same kind of key and data.
func (r *Ruleset) rebuild(is *content) ([]message, error) {
	batch := append([]message{deleteTable()}, create()...)
	for _, s := range sets {
		have, ok := is.sets[s.name]
		have.flags &= flagMap | flagInterval | flagConcat
		if !ok || !s.same(have) {
			continue
		}
		elements, err := r.elements(s)
		if err != nil {
			return nil, err
		}
		batch = append(batch, addElements(s, elements...)...)
	}
	return batch, nil
}

// setState is a set as the kernel has it.
type setState struct {
	name                       string
	flags                      uint32
	key, keyLen, data, dataLen uint32
}

func decodeSet(m netlink.Message) (s setState, err error) {
	err = nfnl.EachAttribute(m, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case unix.NFTA_SET_NAME:
			s.name = ad.String()
		case unix.NFTA_SET_FLAGS:
			s.flags = ad.Uint32()
		case unix.NFTA_SET_KEY_TYPE:
			s.key = ad.Uint32()
		case unix.NFTA_SET_KEY_LEN:
			s.keyLen = ad.Uint32()
		case unix.NFTA_SET_DATA_TYPE:
			s.data = ad.Uint32()
		case unix.NFTA_SET_DATA_LEN:
			s.dataLen = ad.Uint32()
		}
	})
	if err != nil {
		return s, fmt.Errorf("decode set: %w", err)
	}
	return s, nil
}

// same tells whether elements of the set in the kernel are elements of s.
func (s *setSpec) same(is setState) bool {
	key := s.keyType()
	data := nftables.SetDatatype{}
	if s.data != nil {
		data = *s.data
	}
	return is == setState{s.name, s.flags(), key.GetNFTMagic(), key.Bytes, data.GetNFTMagic(), data.Bytes}
}
