// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/zipline-cni/zipline/bpf"
	"github.com/zipline-cni/zipline/internal/testrig"
	"github.com/zipline-cni/zipline/loader"
)

// direct is the reason of packets that eBPF carries to another container.
const direct = bpf.ZiplineReasonREASON_DIRECT

// tally is what the node has counted so far.
type tally struct {
	reasons map[bpf.Reason]uint64
	// forwarded is the kernel's own count of the IPv4 packets that its stack
	// has forwarded. No program of ours can touch it.
	forwarded uint64
}

// handed is the number of packets that were left to the stack. What a device says
// on its own account (multicast, neighbour discovery) belongs to no traffic.
func (t tally) handed() uint64 {
	var n uint64
	for reason, packets := range t.reasons {
		switch reason {
		case bpf.ZiplineReasonREASON_NEXT_GROUP, bpf.ZiplineReasonREASON_NEXT_STACK_SOURCE,
			bpf.ZiplineReasonREASON_NEXT_ARP, bpf.ZiplineReasonREASON_NEXT_ND:
		default:
			if reason.Verdict() == bpf.VerdictNext {
				n += packets
			}
		}
	}
	return n
}

// tally reads the counters inside the node.
func (d *demo) tally() tally {
	t := tally{reasons: map[bpf.Reason]uint64{}}
	err := d.world.Node.Do(func() (err error) {
		if t.forwarded, err = forwardedPackets(); err != nil {
			return err
		}
		node, err := loader.Find(0)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, node.Close()) }()
		counters, err := node.Counters()
		for _, c := range counters {
			t.reasons[c.Reason] += c.Packets
		}
		return err
	})
	if err != nil {
		d.tb.Fatal(fmt.Errorf("read counters of the node: %w", err))
	}
	return t
}

// forwardedPackets reads the calling thread's network namespace.
func forwardedPackets() (uint64, error) {
	text, err := os.ReadFile("/proc/thread-self/net/snmp")
	if err != nil {
		return 0, fmt.Errorf("read statistics: %w", err)
	}
	return parseForwarded(string(text))
}

// parseForwarded finds ForwDatagrams in the text of /proc/net/snmp: a line of
// names, then a line of values, each beginning with the protocol.
func parseForwarded(text string) (uint64, error) {
	var names []string
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != "Ip:" {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		for i, name := range names {
			if name == "ForwDatagrams" && i < len(fields) {
				return strconv.ParseUint(fields[i], 10, 64)
			}
		}
	}
	return 0, errors.New("statistics have no ForwDatagrams")
}

// traffic is something to send, and the way that it has to take.
type traffic struct {
	what string
	send func() error
	// carried says that eBPF has to carry all of it past the stack; otherwise
	// the stack has to forward all of it for this reason.
	carried bool
	reason  bpf.Reason
}

func (d *demo) showCounters() {
	d.screen.title("COUNTERS (packets; a GSO packet counts once)")
	rows := [][]string{{"sent", "redirected by eBPF", "handed to the stack", "forwarded by the stack", ""}}
	a, b := d.pods[0], d.pods[1]
	for _, t := range []traffic{
		{
			"a -> b, 4 MB over TCP and back", func() error {
				return a.Bulk(netip.AddrPortFrom(b.address.Addr(), tcpPort), 4<<20)
			}, true, 0,
		},
		{"a -> b, 1 ping", func() error { return a.Ping(b.address.Addr()) }, false, bpf.ZiplineReasonREASON_NEXT_PROTOCOL},
		{
			"a -> outside, 1 MB over TCP", func() error {
				return a.Bulk(netip.AddrPortFrom(testrig.InternetIPv4, tcpPort), 1<<20)
			}, false, bpf.ZiplineReasonREASON_NEXT_NO_ENDPOINT,
		},
	} {
		rows = append(rows, d.trafficRow(t))
	}
	d.screen.table(rows)
}

// settled waits until nothing is counted any more, as the last packets of a
// connection come after its end, and returns the counters.
func (d *demo) settled() tally {
	const pause, patience = 50 * time.Millisecond, 60
	last := d.tally()
	for range patience {
		time.Sleep(pause)
		now := d.tally()
		if now.forwarded == last.forwarded && maps.Equal(now.reasons, last.reasons) {
			return now
		}
		last = now
	}
	d.tb.Fatal(errors.New("read counters of the node: they never come to rest"))
	return last
}

// trafficRow sends, compares the counters of before and after, and returns the
// cells of a table.
func (d *demo) trafficRow(t traffic) []string {
	before := d.settled()
	err := t.send()
	after := d.settled()
	redirected := after.reasons[direct] - before.reasons[direct]
	forwarded := after.forwarded - before.forwarded
	handed := after.handed() - before.handed()
	ok := err == nil
	if t.carried {
		ok = ok && redirected > 0 && handed == 0 && forwarded == 0
	} else {
		ok = ok && redirected == 0 && after.reasons[t.reason] > before.reasons[t.reason] && forwarded > 0
	}
	mark := d.screen.check(ok, "%s: %d packets redirected, %d handed to the stack, %d forwarded by it: %v",
		t.what, redirected, handed, forwarded, err)
	return []string{t.what, fmt.Sprint(redirected), fmt.Sprint(handed), fmt.Sprint(forwarded), mark}
}
