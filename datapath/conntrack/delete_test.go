// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/nfnl"
	"github.com/zipline-cni/zipline/internal/testutil"
)

// enterNetns moves the test's goroutine to a new network namespace, which dies
// with its thread.
func enterNetns(tb testing.TB) {
	tb.Helper()
	testutil.RequireRoot(tb)
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		tb.Fatal(err)
	}
}

// insert makes an entry with the conntrack program.
func insert(tb testing.TB, args string) {
	tb.Helper()
	testutil.RequireProgram(tb, "conntrack")
	fields := append([]string{"-I", "-t", "600"}, strings.Fields(args)...)
	if out, err := exec.Command("conntrack", fields...).CombinedOutput(); err != nil {
		tb.Fatalf("conntrack %s: %v\n%s", strings.Join(fields, " "), err, out)
	}
}

// listing returns all entries as the conntrack program prints them.
func listing(tb testing.TB) string {
	tb.Helper()
	var all string
	for _, family := range []string{"ipv4", "ipv6"} {
		out, err := exec.Command("conntrack", "-L", "-f", family).Output()
		if err != nil {
			tb.Fatalf("conntrack -L: %v", err)
		}
		all += string(out)
	}
	return all
}

func TestDeleteAddress(t *testing.T) {
	const (
		pod, pod6 = "10.1.0.2", "fd00:1::2"
		tcp       = " -p tcp --sport 4000 --dport 80 --reply-port-src 80 --reply-port-dst 4000 --state ESTABLISHED"
		udp       = " -p udp --sport 4000 --dport 53 --reply-port-src 53 --reply-port-dst 4000"
		icmp      = " -p icmp --icmp-type 8 --icmp-code 0 --icmp-id 7"
		icmp6     = " -p icmpv6 --icmpv6-type 128 --icmpv6-code 0 --icmpv6-id 7"
	)
	for _, c := range []struct {
		name, address, entry string
		want                 int
	}{
		{"a flow that the address opened, TCP", pod, "-s 10.1.0.2 -d 192.0.2.1 -r 192.0.2.1 -q 10.1.0.2" + tcp, 1},
		{"a flow that the address opened, UDP", pod, "-s 10.1.0.2 -d 192.0.2.1 -r 192.0.2.1 -q 10.1.0.2" + udp, 1},
		{"a flow that the address opened, ICMP", pod, "-s 10.1.0.2 -d 192.0.2.1 -r 192.0.2.1 -q 10.1.0.2" + icmp, 1},
		{"a masqueraded flow", pod, "-s 10.1.0.2 -d 198.51.100.1 -r 198.51.100.1 -q 192.0.2.1" + udp, 1},
		{"a flow to the address", pod, "-s 192.0.2.1 -d 10.1.0.2 -r 10.1.0.2 -q 192.0.2.1" + udp, 1},
		{"a flow to a host port that ends at the address", pod, "-s 192.0.2.9 -d 192.0.2.1 -r 10.1.0.2 -q 192.0.2.9" + udp, 1},
		{"a hairpin of the address", pod, "-s 10.1.0.2 -d 192.0.2.1 -r 10.1.0.2 -q 192.0.2.1" + udp, 1},
		{"an entry in a zone", pod, "-s 10.1.0.2 -d 192.0.2.1 -r 192.0.2.1 -q 10.1.0.2 --zone 7" + udp, 1},
		{"IPv6 TCP", pod6, "-s fd00:1::2 -d 2001:db8::1 -r 2001:db8::1 -q fd00:1::2" + tcp, 1},
		{"IPv6 UDP to the address", pod6, "-s 2001:db8::1 -d fd00:1::2 -r fd00:1::2 -q 2001:db8::1" + udp, 1},
		{"IPv6 ICMP", pod6, "-s fd00:1::2 -d 2001:db8::1 -r 2001:db8::1 -q fd00:1::2" + icmp6, 1},
		{"a flow of another address stays", pod, "-s 10.1.0.3 -d 192.0.2.1 -r 192.0.2.1 -q 10.1.0.3" + udp, 0},
		{"a flow to the address that ends elsewhere stays", pod, "-s 192.0.2.9 -d 10.1.0.2 -r 10.1.0.3 -q 192.0.2.9" + udp, 0},
		{"a flow translated to the address stays", pod, "-s 10.1.0.3 -d 192.0.2.1 -r 192.0.2.1 -q 10.1.0.2" + udp, 0},
		{"an IPv6 flow of another address stays", pod6, "-s fd00:1::3 -d 2001:db8::1 -r 2001:db8::1 -q fd00:1::3" + udp, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			enterNetns(t)
			insert(t, c.entry)
			other := "-s 203.0.113.1 -d 203.0.113.2 -r 203.0.113.2 -q 203.0.113.1" + udp
			insert(t, other)
			n, err := DeleteAddresses(netip.MustParseAddr(c.address))
			if err != nil || n != c.want {
				t.Errorf("deleted %d, %v, want %d", n, err, c.want)
			}
			left := strings.Count(listing(t), "\n")
			if want := 2 - c.want; left != want {
				t.Errorf("%d entries left, want %d:\n%s", left, want, listing(t))
			}
		})
	}
}

func TestDeleteAddressInAnEmptyNamespace(t *testing.T) {
	enterNetns(t)
	for _, address := range []string{"10.1.0.2", "fd00::1"} {
		if n, err := DeleteAddresses(netip.MustParseAddr(address)); n != 0 || err != nil {
			t.Errorf("deleted %d, %v of nothing", n, err)
		}
	}
	if _, err := DeleteAddresses(netip.Addr{}); err == nil {
		t.Error("no error without an address")
	}
}

// The kernel itself must leave out what does not match: it is asked without the
// check that list makes for older kernels.
func TestKernelFilters(t *testing.T) {
	enterNetns(t)
	fill(t, 1000)
	conn := mustOpen(t)
	for _, c := range []struct {
		d    direction
		addr string
		want int
	}{
		{original, "10.0.0.1", 1}, {original, "192.0.2.1", 0},
		{reply, "192.0.2.1", 1000}, {reply, "10.0.0.1", 0},
	} {
		got := 0
		err := conn.Dump(filterMessage(getEntry, 0, netip.MustParseAddr(c.addr), c.d), func(netlink.Message) error {
			got++
			return nil
		})
		if err != nil || got != c.want {
			t.Errorf("filter %s in direction %d: %d entries, %v, want %d", c.addr, c.d.tuple, got, err, c.want)
		}
	}
}

// Older kernels are served by listing, so every way is run here.
func TestEveryWayDeletesTheSame(t *testing.T) {
	for name, f := range map[string]func(*nfnl.Conn, []netip.Addr) error{
		"by the kernel's filter": deleteMatching,
		"listed by the kernel's filter": func(c *nfnl.Conn, a []netip.Addr) error {
			return deleteListed(c, a, listMatching)
		},
		"listed": func(c *nfnl.Conn, a []netip.Addr) error { return deleteListed(c, a, listAll) },
	} {
		t.Run(name, func(t *testing.T) {
			enterNetns(t)
			fill(t, 1000)
			conn := mustOpen(t)
			addrs := []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.7")}
			err := f(conn, addrs)
			if errors.Is(err, errNoFilter) {
				testutil.RequireKernel(t, "conntrack filters", err)
			}
			if err != nil {
				t.Fatal(err)
			}
			left, err := listAll(conn, addrs)
			if n, _ := count(conn); n != 998 || err != nil || len(left) != 0 {
				t.Errorf("%d entries left, want 998, of them %v, %v", n, left, err)
			}
		})
	}
}

// A tuple that was taken by another entry since must survive.
func TestDeletionNamesTheEntry(t *testing.T) {
	enterNetns(t)
	fill(t, 1)
	conn := mustOpen(t)
	entries, err := listAll(conn, []netip.Addr{netip.MustParseAddr("10.0.0.1")})
	if err != nil || len(entries) != 1 {
		t.Fatalf("found %v, %v", entries, err)
	}
	for _, want := range []int{1, 0} {
		entries[0].id[0] ^= byte(want) // wrong in the first round only
		if err := deleteEntries(conn, append(entries, entries...)); err != nil {
			t.Fatal(err)
		}
		if n, err := count(conn); n != want || err != nil {
			t.Errorf("%d entries left, %v, want %d", n, err, want)
		}
		entries[0].id[0] ^= byte(want)
	}
}

func TestDeleteManyAddressesWithManyEntries(t *testing.T) {
	enterNetns(t)
	fill(t, 5000)
	insert(t, "-s fd00:1::2 -d 2001:db8::1 -r 2001:db8::1 -q fd00:1::2 -p udp"+
		" --sport 4000 --dport 53 --reply-port-src 53 --reply-port-dst 4000")
	n, err := DeleteAddresses(netip.MustParseAddr("fd00:1::2"), netip.MustParseAddr("192.0.2.1"))
	if n != 5001 || err != nil {
		t.Errorf("deleted %d, %v, want 5001", n, err)
	}
}

func mustOpen(tb testing.TB) *nfnl.Conn {
	tb.Helper()
	conn, err := nfnl.Open()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := conn.Close(); err != nil {
			tb.Error(err)
		}
	})
	return conn
}

// fill makes n UDP entries, the i-th from 10.0.0.1 plus i to 192.0.2.1.
func fill(tb testing.TB, n int) {
	tb.Helper()
	conn := mustOpen(tb)
	for from := 0; from < n; from += window {
		batch := make([]netlink.Message, min(window, n-from))
		for i := range batch {
			var source [4]byte
			binary.BigEndian.PutUint32(source[:], 10<<24+1+uint32(from+i))
			batch[i] = newEntry(netip.AddrFrom4(source), netip.MustParseAddr("192.0.2.1"))
		}
		first, err := conn.Send(batch...)
		if err != nil {
			tb.Fatal(err)
		}
		for range batch {
			if _, err := conn.Receive(first); err != nil {
				tb.Fatal(err)
			}
		}
	}
}

func newEntry(source, destination netip.Addr) netlink.Message {
	tuple := func(e *netlink.AttributeEncoder, kind uint16, source, destination netip.Addr) {
		nested(e, kind, func(t *netlink.AttributeEncoder) {
			nested(t, attrTupleIP, func(ip *netlink.AttributeEncoder) {
				ip.Bytes(attrSource4, source.AsSlice())
				ip.Bytes(2, destination.AsSlice())
			})
			nested(t, 2, func(proto *netlink.AttributeEncoder) {
				proto.Bytes(1, []byte{unix.IPPROTO_UDP})
				proto.Bytes(2, []byte{0, 53})
				proto.Bytes(3, []byte{0, 53})
			})
		})
	}
	const newEntryKind, attrTimeout = 0, 7
	return newMessage(newEntryKind, netlink.Request|netlink.Acknowledge|netlink.Create|netlink.Excl, unix.AF_INET,
		encode(func(e *netlink.AttributeEncoder) {
			tuple(e, attrTupleOriginal, source, destination)
			tuple(e, attrTupleReply, destination, source)
			e.Bytes(attrTimeout, binary.BigEndian.AppendUint32(nil, 600))
		}))
}

// A walk costs as many buckets as the machine has (nf_conntrack_buckets), which
// the first namespace decides, and what is in them.
func BenchmarkDeleteAddress(b *testing.B) {
	for _, addr := range []string{"10.255.0.1", "fd00::1"} {
		for _, n := range []int{0, 1, 1000, 100000} {
			b.Run(fmt.Sprintf("%s with %d entries", addr, n), func(b *testing.B) {
				enterNetns(b)
				fill(b, n)
				for b.Loop() {
					if _, err := DeleteAddresses(netip.MustParseAddr(addr)); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
	for name, f := range map[string]lister{"kernel before 6.12": listMatching, "kernel before 5.8": listAll} {
		b.Run("10.255.0.1 with 100000 entries as on a "+name, func(b *testing.B) {
			enterNetns(b)
			fill(b, 100000)
			conn := mustOpen(b)
			for b.Loop() {
				if _, err := f(conn, []netip.Addr{netip.MustParseAddr("10.255.0.1")}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
