// SPDX-License-Identifier: Apache-2.0

package filter

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/bpf"
)

// errEnd says that an expression stops in its middle.
var errEnd = errors.New("something is missing at the end")

// qualifiers are the words before a value.
type qualifiers struct {
	protocol  string
	direction direction
	kind      string // "" is host
}

type parser struct {
	words []string
	last  *qualifiers // of the value before
}

func parse(expression string) (node, error) {
	for _, mark := range []string{"(", ")", "!", "&&", "||"} {
		expression = strings.ReplaceAll(expression, mark, " "+mark+" ")
	}
	p := &parser{words: strings.Fields(expression)}
	if len(p.words) == 0 {
		return nil, nil
	}
	n, err := p.expression()
	if err == nil && len(p.words) > 0 {
		err = fmt.Errorf("unexpected %q", p.words[0])
	}
	return n, err
}

func (p *parser) peek() string {
	if len(p.words) == 0 {
		return ""
	}
	return p.words[0]
}

func (p *parser) take(words ...string) (string, bool) {
	word := p.peek()
	if word == "" || !slices.Contains(words, word) {
		return "", false
	}
	p.words = p.words[1:]
	return word, true
}

func (p *parser) next() (string, error) {
	word := p.peek()
	if word == "" {
		return "", errEnd
	}
	p.words = p.words[1:]
	return word, nil
}

// expression binds "and" and "or" equally, as tcpdump does.
func (p *parser) expression() (node, error) {
	n, err := p.term()
	for err == nil {
		word, ok := p.take("and", "&&", "or", "||")
		if !ok {
			return n, nil
		}
		var right node
		if right, err = p.term(); word == "and" || word == "&&" {
			n = and{n, right}
		} else {
			n = or{n, right}
		}
	}
	return nil, err
}

func (p *parser) term() (node, error) {
	if _, ok := p.take("not", "!"); ok {
		n, err := p.term()
		return not{n}, err
	}
	if _, ok := p.take("("); ok {
		n, err := p.expression()
		if err != nil {
			return nil, err
		}
		if _, ok := p.take(")"); !ok {
			return nil, errors.New("a parenthesis is not closed")
		}
		return n, nil
	}
	return p.primitive()
}

var protocols = map[string]node{
	"ip": etherType(typeIPv4), "ip6": etherType(typeIPv6), "arp": etherType(typeARP),
	"tcp": or{protocol6(6), protocol4(6)}, "udp": or{protocol6(17), protocol4(17)}, "sctp": or{protocol6(132), protocol4(132)},
	"icmp": protocol4(1), "igmp": protocol4(2), "icmp6": protocol6(58), "ether": nil,
}

var numbers = map[string]uint32{"icmp": 1, "igmp": 2, "tcp": 6, "udp": 17, "icmp6": 58, "sctp": 132}

func (p *parser) primitive() (node, error) {
	switch word, _ := p.take("less", "greater", "broadcast", "multicast"); word {
	case "less", "greater":
		return p.frameLength(word)
	case "broadcast", "multicast":
		return qualifiers{protocol: "ether"}.group(word)
	}
	q, qualified, err := p.qualifiers()
	if err != nil {
		return nil, err
	}
	if qualified {
		if word, ok := p.take("broadcast", "multicast"); ok {
			return q.group(word)
		}
		if n := protocols[q.protocol]; n != nil && q.kind == "" && q.direction == either && !p.value() {
			return n, nil
		}
		p.last = &q
	} else if p.last != nil {
		q = *p.last
	}
	word, err := p.next()
	if err != nil {
		return nil, err
	}
	return q.of(word)
}

// value says whether what comes next is a value.
func (p *parser) value() bool {
	return p.peek() != "" && !slices.Contains([]string{")", "and", "or", "&&", "||"}, p.peek())
}

// qualifiers reads the words before a value.
func (p *parser) qualifiers() (q qualifiers, any bool, err error) {
	for name := range protocols {
		if word, ok := p.take(name); ok {
			q.protocol, any = word, true
			break
		}
	}
	if word, ok := p.take("src", "dst"); ok {
		any = true
		q.direction = map[string]direction{"src": source, "dst": destination}[word]
		other := map[string]string{"src": "dst", "dst": "src"}[word]
		if len(p.words) > 1 && p.words[1] == other && (p.words[0] == "or" || p.words[0] == "and") {
			q.direction = either
			if p.words[0] == "and" {
				q.direction = both
			}
			p.words = p.words[2:]
		}
	}
	if word, ok := p.take("host", "net", "port", "portrange", "proto"); ok {
		q.kind, any = word, true
	}
	return q, any, nil
}

func (p *parser) frameLength(word string) (node, error) {
	text, err := p.next()
	if err != nil {
		return nil, err
	}
	n, err := strconv.ParseUint(text, 0, 32)
	if err != nil {
		return nil, fmt.Errorf("length %q", text)
	}
	if word == "less" {
		return not{length(bpf.JumpGreaterThan, uint32(n))}, nil
	}
	return length(bpf.JumpGreaterOrEqual, uint32(n)), nil
}

// group makes the condition of a word for many receivers.
func (q qualifiers) group(word string) (node, error) {
	switch {
	case q.direction != either || q.kind != "":
		return nil, fmt.Errorf("%s has neither a direction nor a kind", word)
	case q.protocol == "ether" && word == "broadcast":
		return mac(destination, net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}), nil
	case q.protocol == "ether":
		return test{load: load(0, 1), cond: bpf.JumpBitsSet, value: 1}, nil
	case q.protocol == "ip" && word == "multicast":
		return and{etherType(typeIPv4), test{load: load(atIP+16, 1), cond: bpf.JumpGreaterOrEqual, value: 224}}, nil
	case q.protocol == "ip6" && word == "multicast":
		return and{etherType(typeIPv6), equal(atIP+24, 1, 0xff)}, nil
	}
	return nil, fmt.Errorf("%s %s is not supported", q.protocol, word)
}

// of makes the condition of a value.
func (q qualifiers) of(word string) (node, error) {
	switch {
	case q.kind == "proto":
		return q.number(word)
	case q.protocol == "ether":
		m, err := net.ParseMAC(word)
		if err != nil || len(m) != 6 || q.kind != "" && q.kind != "host" {
			return nil, fmt.Errorf("ether %s %q", q.kind, word)
		}
		return mac(q.direction, m), nil
	case q.kind == "port" || q.kind == "portrange":
		return q.ports(word)
	}
	if !slices.Contains([]string{"", "ip", "ip6", "arp"}, q.protocol) {
		return nil, fmt.Errorf("%s with an address is not supported", q.protocol)
	}
	p, err := q.prefix(word)
	if err != nil {
		return nil, err
	}
	if p.Addr().Is6() && (q.protocol == "ip" || q.protocol == "arp") || p.Addr().Is4() && q.protocol == "ip6" {
		return nil, fmt.Errorf("%s with an address of another family", q.protocol)
	}
	return addresses(q.protocol, q.direction, p), nil
}

func (q qualifiers) prefix(word string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(word); err == nil && addr.Zone() == "" {
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	if q.kind != "net" {
		return netip.Prefix{}, fmt.Errorf("unknown word %q: want an address, or see --help for the language", word)
	}
	if p, err := netip.ParsePrefix(word); err == nil {
		if p != p.Masked() {
			return p, fmt.Errorf("net %q has bits beyond its length", word)
		}
		return p, nil
	}
	parts := strings.Split(word, ".")
	if len(parts) <= 3 {
		if p, err := netip.ParsePrefix(word + strings.Repeat(".0", 4-len(parts)) + "/" + strconv.Itoa(8*len(parts))); err == nil {
			return p, nil
		}
	}
	return netip.Prefix{}, fmt.Errorf("net %q", word)
}

func (q qualifiers) number(word string) (node, error) {
	if q.direction != either {
		return nil, errors.New("proto has no direction")
	}
	word = strings.TrimPrefix(word, `\`)
	number, known := numbers[word]
	if !known {
		n, err := strconv.ParseUint(word, 0, 16)
		if err != nil || n > 255 && q.protocol != "ether" {
			return nil, fmt.Errorf("proto %q", word)
		}
		number = uint32(n)
	}
	switch {
	case q.protocol == "ether" && !known && number >= 0x600:
		return etherType(number), nil
	case q.protocol == "ip":
		return protocol4(number), nil
	case q.protocol == "ip6":
		return protocol6(number), nil
	case q.protocol == "":
		return or{protocol4(number), protocol6(number)}, nil
	}
	return nil, fmt.Errorf("%s proto %q is not supported", q.protocol, word)
}

func (q qualifiers) ports(word string) (node, error) {
	over := []uint32{numbers["sctp"], numbers["tcp"], numbers["udp"]}
	if q.protocol != "" {
		if !slices.Contains([]string{"tcp", "udp", "sctp"}, q.protocol) {
			return nil, fmt.Errorf("%s with a port", q.protocol)
		}
		over = []uint32{numbers[q.protocol]}
	}
	first, last := word, word
	if q.kind == "portrange" {
		var ok bool
		if first, last, ok = strings.Cut(word, "-"); !ok {
			return nil, fmt.Errorf("portrange %q: want FIRST-LAST", word)
		}
	}
	var bounds []uint32
	for _, text := range []string{first, last} {
		n, only, err := port(text, over)
		if err != nil {
			return nil, err
		}
		bounds, over = append(bounds, n), only
	}
	return ports(over, q.direction, slices.Min(bounds), slices.Max(bounds)), nil
}

// port returns a port, and over which of the protocols it has that name.
func port(word string, over []uint32) (uint32, []uint32, error) {
	if n, err := strconv.ParseUint(word, 0, 16); err == nil {
		return uint32(n), over, nil
	}
	var found []uint32
	number := 0
	for _, name := range []string{"tcp", "udp"} {
		if n, err := net.LookupPort(name, word); err == nil && slices.Contains(over, numbers[name]) && (number == 0 || n == number) {
			number, found = n, append(found, numbers[name])
		}
	}
	switch len(found) {
	case 0:
		return 0, nil, fmt.Errorf("port %q", word)
	case 1:
		return uint32(number), found, nil
	}
	return uint32(number), over, nil
}
