// SPDX-License-Identifier: Apache-2.0

package filter

import (
	"encoding/binary"
	"net/netip"
)

// expressions are compared with what tcpdump makes of them.
var expressions = []string{
	"tcp", "udp", "icmp", "icmp6", "arp", "ip", "ip6", "sctp", "igmp",
	"host 10.0.0.1", "src host 10.0.0.1", "dst host 10.0.0.1", "src 10.0.0.1", "dst 10.0.0.2", "host 2001:db8::1",
	"src host 2001:db8::1", "dst 2001:db8::2", "ip host 10.0.0.1", "ip6 host 2001:db8::1", "arp host 10.0.0.1",
	"net 10.0.0.0/8", "src net 10.0.0.0/24", "dst net 192.0.2.0/24", "net 10", "net 10.0.0", "net 2001:db8::/32", "net 0.0.0.0/0",
	"src net 2001:db8::/126", "ip net 10.0.0.0/30", "dst net 2001:db8:0:0:8000::/65",
	"port 80", "src port 80", "dst port 443", "tcp port 80", "udp port 53", "tcp src port 80", "udp dst port 53", "sctp port 80",
	"portrange 80-443", "src portrange 1-100", "tcp dst portrange 440-450", "port 65535",
	"src or dst port 80", "src and dst port 80", "src or dst host 10.0.0.1", "src and dst net 10.0.0.0/8",
	"ip proto 6", "ip proto 17", "proto 1", "ip6 proto 58", "ip proto \\tcp",
	"ether proto 0x0806", "ether host 02:00:00:00:00:01", "ether src 02:00:00:00:00:01", "ether dst 02:00:00:00:00:02",
	"ether broadcast", "ether multicast", "broadcast", "multicast",
	"less 60", "greater 70",
	"tcp and port 80", "tcp or udp", "not tcp", "! udp", "tcp && host 10.0.0.1", "udp || icmp", "not (tcp or udp)",
	"tcp and (port 80 or port 443)", "host 10.0.0.1 and not port 22", "tcp and not host 10.0.0.1 or udp",
	"port 80 or 443", "host 10.0.0.1 or 10.0.0.2", "tcp port 80 or 443", "src 10.0.0.1 and dst 10.0.0.2 and tcp",
	"not arp and not icmp", "ip and tcp and dst port 80", "icmp or icmp6 or arp", "host 10.0.0.1 and 10.0.0.2",
	"(tcp)", "not not tcp", "not (host 10.0.0.1 and port 80) and ip", "udp port 53 or tcp port 53",
	"port http", "udp port domain", "ip multicast", "ip6 multicast",
	"ip or arp and host 10.0.0.1", "not port 80 and tcp", "not host 10.0.0.1", "dst port 80 or dst port 443",
}

// corpus is packets of all kinds.
func corpus() [][]byte {
	var all [][]byte
	macs := [][]byte{{2, 0, 0, 0, 0, 1}, {2, 0, 0, 0, 0, 2}, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, {1, 0, 0x5e, 0, 0, 1}}
	v4 := []string{"10.0.0.1", "10.0.0.2", "10.9.0.1", "192.0.2.7", "224.0.0.1", "255.255.255.255"}
	v6 := []string{"2001:db8::1", "2001:db8::2", "2001:db8:0:0:8000::1", "fe80::1", "ff02::1"}
	ports := []uint16{22, 53, 80, 443, 445, 65535}
	for i, src := range v4 {
		for j, dst := range v4 {
			eth := append(append([]byte{}, macs[(j+i)%4]...), macs[i%4]...)
			for k, proto := range []byte{1, 2, 6, 17, 132, 47} {
				for l, port := range ports {
					ip := append(append([]byte{}, eth...), 8, 0)
					options, fragment := 0, uint16(0)
					if l == 4 {
						options = 8
					}
					if l == 5 && k%2 == 0 {
						fragment = 0x2005
					}
					h := make([]byte, 20+options)
					h[0], h[9] = byte(0x45+options/4), proto
					binary.BigEndian.PutUint16(h[6:], fragment)
					copy(h[12:], netip.MustParseAddr(src).AsSlice())
					copy(h[16:], netip.MustParseAddr(dst).AsSlice())
					all = append(all, transport(append(ip, h...), port, ports[(l+i+j)%6], k))
				}
			}
			arp := append(append([]byte{}, eth...), 8, 6, 0, 1, 8, 0, 6, 4, 0, 1)
			arp = append(append(arp, macs[0]...), netip.MustParseAddr(src).AsSlice()...)
			all = append(all, append(append(arp, macs[1]...), netip.MustParseAddr(dst).AsSlice()...))
		}
	}
	for i, src := range v6 {
		for j, dst := range v6 {
			for k, next := range []byte{58, 6, 17, 132, 0, 44, 1} {
				for l, port := range ports {
					h := append(append(append([]byte{}, macs[j%4]...), macs[i%4]...), 0x86, 0xdd)
					ip := make([]byte, 40)
					ip[0], ip[6] = 0x60, next
					copy(ip[8:], netip.MustParseAddr(src).AsSlice())
					copy(ip[24:], netip.MustParseAddr(dst).AsSlice())
					if next == 44 {
						ip = append(ip, []byte{6, 58, 17}[l%3], 0, 0, 0, 0, 0, 0, 0)
					}
					all = append(all, transport(append(h, ip...), port, ports[(l+i+j)%6], k))
				}
			}
		}
	}
	all = append(all, append(append(append([]byte{}, macs[0]...), macs[1]...), 0x88, 0xcc, 1, 2, 3))
	return all
}

func transport(b []byte, src, dst uint16, payload int) []byte {
	b = binary.BigEndian.AppendUint16(b, src)
	b = binary.BigEndian.AppendUint16(b, dst)
	return append(b, make([]byte, 4+payload*5)...)
}
