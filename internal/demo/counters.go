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

// tally is what the node has counted so far.
type tally struct {
	reasons map[bpf.Reason]uint64
	// forwarded is the kernel's own count of the IPv4 packets that its stack
	// has forwarded. No program of ours can touch it.
	forwarded uint64
}

// redirected is the number of packets that eBPF has carried past the stack.
func (t tally) redirected() uint64 {
	return t.packets(bpf.VerdictRedirect)
}

// handed is the number of packets of traffic that were left to the stack.
func (t tally) handed() uint64 {
	return t.packets(bpf.VerdictNext)
}

func (t tally) packets(verdict bpf.Verdict) uint64 {
	var n uint64
	for reason, packets := range t.reasons {
		if reason.Verdict() == verdict && !reason.OwnAccount() {
			n += packets
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
		counters, err := loader.ReadCounters()
		for _, c := range counters {
			if c.Hook != bpf.HookDevice { // it counts what came through the stack once more
				t.reasons[c.Reason] += c.Packets
			}
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
	way  way
	// reason is why the stack has to have it, all of it or the beginning.
	reason bpf.Reason
}

// way is who has to carry the traffic.
type way int

const (
	past        way = iota // eBPF all of it
	through                // the stack all of it
	established            // the stack until the flow is established, then eBPF
)

// taken says whether the traffic took its way.
func (w way) taken(redirected, handed, forwarded, forReason uint64) bool {
	switch w {
	case past:
		return redirected > 0 && handed == 0 && forwarded == 0
	case through:
		return redirected == 0 && forReason > 0 && forwarded > 0
	default:
		return redirected > 20*handed && forReason > 0 && forwarded > 0
	}
}

func (d *demo) showCounters() {
	d.screen.title("COUNTERS (packets; a GSO packet counts once)")
	rows := [][]string{{"sent", "redirected by eBPF", "handed to the stack", "forwarded by the stack", ""}}
	a, b := d.pods[0], d.pods[1]
	for _, t := range []traffic{
		{
			"a -> b, 4 MB over TCP and back", func() error {
				return a.Bulk(netip.AddrPortFrom(b.address.Addr(), tcpPort), 4<<20)
			}, past, 0,
		},
		{"a -> b, 1 ping", func() error { return a.Ping(b.address.Addr()) }, through, bpf.ZiplineReasonREASON_NEXT_PROTOCOL},
		{
			"a -> outside, 64 MB over TCP", func() error {
				return a.Bulk(netip.AddrPortFrom(testrig.InternetIPv4, tcpPort), 64<<20)
			}, established, bpf.ZiplineReasonREASON_NEXT_TCP_FLAGS,
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
	redirected := after.redirected() - before.redirected()
	forwarded := after.forwarded - before.forwarded
	handed := after.handed() - before.handed()
	ok := err == nil && t.way.taken(redirected, handed, forwarded, after.reasons[t.reason]-before.reasons[t.reason])
	mark := d.screen.check(ok, "%s: %d packets redirected, %d handed to the stack, %d forwarded by it: %v",
		t.what, redirected, handed, forwarded, err)
	return []string{t.what, fmt.Sprint(redirected), fmt.Sprint(handed), fmt.Sprint(forwarded), mark}
}
