// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// preroutingRules drop forged sources. Every packet of the node meets them: what
// comes from no endpoint leaves after one test, and an endpoint's own address,
// which is routed to it, after one lookup. The kernel's lookup of the route itself
// lets pass what has no source yet: 0.0.0.0 to broadcast and multicast (DHCP,
// IGMP), ICMPv6 from :: to link-local destinations (duplicate address detection,
// MLD).
func preroutingRules() []rule {
	accept := verdict(expr.VerdictAccept)
	rules := []rule{
		// Two tests, not a range: nft turns the bytes of a number to compare it
		// with a range, and a packet of a checked endpoint fails the first one.
		{
			text: "iifgroup != 31340 iifgroup != 31341 accept",
			exprs: join(notGroup(expr.MetaKeyIIFGROUP, GroupChecked),
				notGroup(expr.MetaKeyIIFGROUP, GroupUnchecked), accept),
		},
		{
			text: "iifname . ip saddr @address4 accept",
			exprs: join(isIPv4(), meta(expr.MetaKeyIIFNAME), network(source4, len4, reg2),
				in(ipv4.address), accept),
		},
		{
			text: "iifname . ip6 saddr @address6 accept",
			exprs: join(isIPv6(), meta(expr.MetaKeyIIFNAME), network(source6, len6, reg2),
				in(ipv6.address), accept),
		},
	}
	rules = append(rules, macRules()...)
	return append(rules, []rule{
		{
			text:  "iifgroup 31341 accept",
			exprs: join(group(expr.MetaKeyIIFGROUP, GroupUnchecked), accept),
		},
		// Link-local sources never leave the veth pair, and the host end has a
		// route for them only if it has a link-local address of its own.
		{
			text: "ip6 saddr fe80::/10 accept",
			exprs: join(isIPv6(), network(source6, len6, reg1),
				&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: len6,
					Mask: []byte{0xff, 0xc0, 15: 0}, Xor: make([]byte, len6)},
				equal([]byte{0xfe, 0x80, 15: 0}), accept),
		},
		{
			text:    "fib saddr . iif oif missing counter drop",
			comment: "source address is not routed to this endpoint",
			exprs: join(&expr.Fib{Register: reg1, ResultOIF: true, FlagSADDR: true, FlagIIF: true, FlagPRESENT: true},
				equal(make([]byte, 4)), &expr.Counter{}, verdict(expr.VerdictDrop)),
		},
	}...)
}

// macRules drop packets with another source MAC than the endpoint's.
func macRules() []rule {
	const etherSource, etherLen, arphrdEther = 6, 6, 1
	return []rule{
		{
			text:    "iifname @macspoofchk iifname . ether saddr != @mac counter drop",
			comment: "source MAC is not the endpoint's",
			exprs: join(meta(expr.MetaKeyIIFNAME), in(checkedDevices),
				meta(expr.MetaKeyIIFTYPE), equal(binaryutil.NativeEndian.PutUint16(arphrdEther)),
				meta(expr.MetaKeyIIFNAME),
				&expr.Payload{Base: expr.PayloadBaseLLHeader, Offset: etherSource, Len: etherLen, DestRegister: reg2},
				notIn(allowedMACs), &expr.Counter{}, verdict(expr.VerdictDrop)),
		},
	}
}

// sourceRules send packets from translated addresses to a chain.
func sourceRules(chain string) []rule {
	return []rule{
		{
			text:  "ip saddr @source4 goto " + chain,
			exprs: join(isIPv4(), network(source4, len4, reg1), in(ipv4.source), goTo(chain)),
		},
		{
			text:  "ip6 saddr @source6 goto " + chain,
			exprs: join(isIPv6(), network(source6, len6, reg1), in(ipv6.source), goTo(chain)),
		},
	}
}

// exemptRules return for destinations that see the endpoint's own address.
func exemptRules() []rule {
	leave := verdict(expr.VerdictReturn)
	return []rule{
		{
			text: "ip saddr . ip daddr @exempt4 return",
			exprs: join(isIPv4(), network(source4, len4, reg1), network(destination4, len4, reg1Next),
				in(ipv4.exempt), leave),
		},
		{
			text: "ip6 saddr . ip6 daddr @exempt6 return",
			exprs: join(isIPv6(), network(source6, len6, reg1), network(destination6, len6, reg2),
				in(ipv6.exempt), leave),
		},
		{
			text: "ip daddr 224.0.0.0/4 return",
			exprs: join(isIPv4(), network(destination4, len4, reg1),
				&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: len4,
					Mask: []byte{0xf0, 0, 0, 0}, Xor: make([]byte, len4)},
				equal([]byte{224, 0, 0, 0}), leave),
		},
		{
			text: "ip daddr 255.255.255.255 return",
			exprs: join(isIPv4(), network(destination4, len4, reg1),
				equal([]byte{255, 255, 255, 255}), leave),
		},
		{
			text: "ip6 daddr ff00::/8 return",
			exprs: join(isIPv6(), network(destination6, 1, reg1),
				equal([]byte{0xff}), leave),
		},
	}
}

// translateRules translate the source of a packet that leaves its network. A
// source that is missing in a map or set falls through to the next rule.
func translateRules() []rule {
	return append(exemptRules(), []rule{
		{
			text: "snat ip to ip saddr map @snat4",
			exprs: join(isIPv4(), network(source4, len4, reg1), translated(ipv4.snat),
				snat(unix.NFPROTO_IPV4)),
		},
		{
			text: "snat ip6 to ip6 saddr map @snat6",
			exprs: join(isIPv6(), network(source6, len6, reg1), translated(ipv6.snat),
				snat(unix.NFPROTO_IPV6)),
		},
		{
			text: "ip saddr @random4 masquerade fully-random",
			exprs: join(isIPv4(), network(source4, len4, reg1), in(ipv4.random),
				&expr.Masq{FullyRandom: true}),
		},
		{
			text: "ip6 saddr @random6 masquerade fully-random",
			exprs: join(isIPv6(), network(source6, len6, reg1), in(ipv6.random),
				&expr.Masq{FullyRandom: true}),
		},
		{text: "masquerade", exprs: join(&expr.Masq{})},
	}...)
}

// untranslatedRules drop what conntrack cannot translate and what must not be
// seen untranslated. Between endpoints the address is harmless.
func untranslatedRules() []rule {
	leave := verdict(expr.VerdictReturn)
	rules := []rule{
		{text: "oifgroup 31340 return", exprs: join(group(expr.MetaKeyOIFGROUP, GroupChecked), leave)},
		{text: "oifgroup 31341 return", exprs: join(group(expr.MetaKeyOIFGROUP, GroupUnchecked), leave)},
	}
	rules = append(rules, exemptRules()...)
	return append(rules, rule{
		text:    "counter drop",
		comment: "conntrack cannot translate it; it must not leave untranslated",
		exprs:   join(&expr.Counter{}, verdict(expr.VerdictDrop)),
	})
}

// forwardRules drop what isolated neighbours send each other, and then pick the
// packets that conntrack has no valid state for: nat chains never see them. A
// flow is established only after a packet of it passed all of them, so the others
// need none. The match on ct also switches conntrack on.
func forwardRules() []rule {
	const invalid, established = 1, 2 // NF_CT_STATE_INVALID_BIT, NF_CT_STATE_BIT(IP_CT_ESTABLISHED)
	rules := append([]rule{{
		text:  "ct state established accept",
		exprs: join(state(established), verdict(expr.VerdictAccept)),
	}}, neighbourRules()...)
	return append(rules, rule{
		text:  "ct state invalid goto invalid",
		exprs: join(state(invalid), goTo("invalid")),
	})
}

// neighbourRules drop packets between isolated addresses of one subnet. A packet
// that was sent to the node and translated to the neighbour is one of them: a
// bridge whose frames pass netfilter (bridge-nf-call-iptables) drops it too.
func neighbourRules() []rule {
	const why = "isolated endpoints do not reach each other"
	return []rule{
		{
			text:    "ip saddr @isolated4 ip daddr @isolated4 ip saddr . ip daddr @segment4 counter drop",
			comment: why,
			exprs: join(isIPv4(), network(source4, len4, reg1), in(ipv4.isolated),
				network(destination4, len4, reg1), in(ipv4.isolated),
				network(source4, len4, reg1), network(destination4, len4, reg1Next), in(ipv4.segment),
				&expr.Counter{}, verdict(expr.VerdictDrop)),
		},
		{
			text:    "ip6 saddr @isolated6 ip6 daddr @isolated6 ip6 saddr . ip6 daddr @segment6 counter drop",
			comment: why,
			exprs: join(isIPv6(), network(source6, len6, reg1), in(ipv6.isolated),
				network(destination6, len6, reg1), in(ipv6.isolated),
				network(source6, len6, reg1), network(destination6, len6, reg2), in(ipv6.segment),
				&expr.Counter{}, verdict(expr.VerdictDrop)),
		},
	}
}
