// SPDX-License-Identifier: Apache-2.0

// Package filter compiles expressions as tcpdump has them (pcap-filter(7)) into
// programs for a packet socket, for Ethernet frames. It knows a part of the
// language:
//
//	expression = term { ( "and" | "&&" | "or" | "||" ) term }    from left to right
//	term       = ( "not" | "!" ) term | "(" expression ")" | primitive
//	primitive  = tcp | udp | sctp | icmp | icmp6 | igmp | ip | ip6 | arp
//	           | [ether|ip|ip6] ( broadcast | multicast )      broadcast of ether only
//	           | [ip|ip6|arp] [direction] [host] ADDRESS
//	           | [ip|ip6|arp] [direction] net ( PREFIX | 10 | 10.1 | 10.1.2 )
//	           | [tcp|udp|sctp] [direction] ( port PORT | portrange FIRST-LAST )
//	           | [ip|ip6] proto PROTOCOL | ether proto NUMBER
//	           | ether [direction] [host] MAC | less LENGTH | greater LENGTH
//	direction  = src | dst | "src or dst" | "src and dst"
//
// A packet that ends within what is looked at does not match. A value alone repeats
// the words before the last one: "port 80 or 443". What is beyond this part is an
// error, never another meaning: a test compares each with what tcpdump makes of it.
package filter
