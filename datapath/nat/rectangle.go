// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"fmt"
	"net/netip"
	"slices"
)

// span is a range of addresses of one family, ends included.
type span struct{ first, last netip.Addr }

// rectangle is an element of a set of a subnet: all pairs of a source and a
// destination.
type rectangle struct{ source, destination span }

func spanOf(p netip.Prefix) span {
	p = p.Masked()
	last := p.Addr().AsSlice()
	for i := range last {
		if hostBits := (i+1)*8 - p.Bits(); hostBits > 0 {
			last[i] |= byte(1<<min(hostBits, 8) - 1)
		}
	}
	end, _ := netip.AddrFromSlice(last)
	return span{p.Addr(), end}
}

func (s span) contains(o span) bool { return !o.first.Less(s.first) && !s.last.Less(o.last) }

func (s span) overlaps(o span) bool { return !s.last.Less(o.first) && !o.last.Less(s.first) }

// minus returns the parts of s before and behind o, which overlaps s.
func (s span) minus(o span) []span {
	var rest []span
	if s.first.Less(o.first) {
		rest = append(rest, span{s.first, o.first.Prev()})
	}
	if o.last.Less(s.last) {
		rest = append(rest, span{o.last.Next(), s.last})
	}
	return rest
}

// and returns what s and o, which overlap, have in common.
func (s span) and(o span) span {
	if s.first.Less(o.first) {
		s.first = o.first
	}
	if o.last.Less(s.last) {
		s.last = o.last
	}
	return s
}

func (r rectangle) contains(o rectangle) bool {
	return r.source.contains(o.source) && r.destination.contains(o.destination)
}

// minus returns disjoint rectangles that hold what is in r but not in o.
func (r rectangle) minus(o rectangle) []rectangle {
	if !r.source.overlaps(o.source) || !r.destination.overlaps(o.destination) {
		return []rectangle{r}
	}
	var rest []rectangle
	for _, source := range r.source.minus(o.source) {
		rest = append(rest, rectangle{source, r.destination})
	}
	common := r.source.and(o.source)
	for _, destination := range r.destination.minus(o.destination) {
		rest = append(rest, rectangle{common, destination})
	}
	return rest
}

// rectangles returns what an endpoint needs in the sets of its subnets.
func rectangles(sources []Source, opts Options) map[*setSpec][]rectangle {
	wanted := map[*setSpec][]rectangle{}
	for _, s := range sources {
		f := familyOf(s.Address)
		wanted[f.exempt] = append(wanted[f.exempt], s.exempt()...)
	}
	for _, p := range opts.Isolated {
		f, subnet := familyOf(p.Addr()), spanOf(p)
		wanted[f.segment] = append(wanted[f.segment], rectangle{subnet, subnet})
	}
	return wanted
}

// exempt returns the rectangles of a source: its subnet to itself and to its
// exempt prefixes, without prefixes that another one holds.
func (s Source) exempt() []rectangle {
	subnet := spanOf(s.Subnet)
	spans := []span{subnet}
	for _, p := range s.Exempt {
		spans = append(spans, spanOf(p))
	}
	var all []rectangle
	for i, d := range spans {
		held := slices.ContainsFunc(spans[i+1:], func(o span) bool { return o.contains(d) }) ||
			slices.ContainsFunc(spans[:i], func(o span) bool { return o.contains(d) && o != d })
		if !held {
			all = append(all, rectangle{subnet, d})
		}
	}
	return all
}

// uncovered returns what is in wanted but not in present, as disjoint
// rectangles: an interval set takes no overlaps.
func uncovered(wanted, present []rectangle) []rectangle {
	var missing []rectangle
	for _, w := range wanted {
		parts := []rectangle{w}
		for _, p := range append(slices.Clone(present), missing...) {
			var rest []rectangle
			for _, part := range parts {
				rest = append(rest, part.minus(p)...)
			}
			parts = rest
		}
		missing = append(missing, parts...)
	}
	return missing
}

// element returns the rectangle as an element of a set of a subnet.
func (r rectangle) element() element {
	return element{
		key:    append(r.source.first.AsSlice(), r.destination.first.AsSlice()...),
		keyEnd: append(r.source.last.AsSlice(), r.destination.last.AsSlice()...),
		about: fmt.Sprintf("%s-%s . %s-%s",
			r.source.first, r.source.last, r.destination.first, r.destination.last),
	}
}

// rectangleOf is the inverse of element. The second value is false for an
// element that is no rectangle of a family.
func rectangleOf(el element) (rectangle, bool) {
	n := len(el.key) / 2
	if len(el.keyEnd) == 0 {
		el.keyEnd = el.key
	}
	if len(el.key) != len(el.keyEnd) || (n != len4 && n != len6) {
		return rectangle{}, false
	}
	addr := func(b []byte) netip.Addr { a, _ := netip.AddrFromSlice(b); return a }
	return rectangle{
		source:      span{addr(el.key[:n]), addr(el.keyEnd[:n])},
		destination: span{addr(el.key[n:]), addr(el.keyEnd[n:])},
	}, true
}
