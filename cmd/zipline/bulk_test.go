// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/bpf"
	"github.com/zipline-cni/zipline/internal/testrig"
)

// Sizes of a bulk transfer, in each direction.
const (
	bulkBytes     = 64 << 20
	bulkDatagrams = 20000
)

// eachTranslation are ways of each kind of flow.
var eachTranslation = []way{
	{name: "between containers", client: "a", server: "b"},
	{name: "between networks", client: "a", server: "c"},
	{name: "to the outside through SNAT", client: "a", server: "outside"},
	{name: "from the outside through DNAT", client: "peer", server: "a", via: nodeAddr},
	{name: "to a service on the same node", client: "a", server: "b", via: serviceAddr},
}

// TestBulkIsAccelerated counts who carries the packets of large transfers. Each of
// their packets comes in by a host veth or by the uplink, once, so the counters of
// the two programs there are all there is to count.
func TestBulkIsAccelerated(t *testing.T) {
	t.Parallel()
	w := newAgreeWorld(t, trackedTier)
	w.stopRecording()
	var cases []agreeCase
	for _, transfer := range []struct {
		name string
		run  func(l flow, measure func())
	}{{"tcp", flow.bulkTCP}, {"udp", flow.bulkUDP}} {
		cases = append(cases, perWay(agreeCase{name: transfer.name}, eachTranslation, func(c *agreeRun, l flow) {
			var before map[bpf.Reason]uint64
			transfer.run(l, func() { before = w.reasons(c.t) })
			wantAccelerated(c.t, before, w.reasons(c.t))
		})...)
	}
	w.runAll(t, cases)
}

// TestFirstDataIsAccelerated counts the packets of short connections. What checks
// in is the ACK that establishes them: their data is carried, both ways.
func TestFirstDataIsAccelerated(t *testing.T) {
	t.Parallel()
	const connections = 10
	w := newAgreeWorld(t, trackedTier)
	w.stopRecording()
	w.runAll(t, perWay(agreeCase{name: "short tcp"}, eachTranslation, func(c *agreeRun, l flow) {
		done := l.serveTCP(echo)
		before := w.reasons(c.t)
		for i := range connections {
			each := l
			each.from = netip.AddrPortFrom(l.from.Addr(), c.port+4+uint16(i))
			conn := each.mustDial("tcp")
			if err := roundTrip(conn, c.payload(100, i)); err != nil {
				c.errorf("connection %d: %v", i, err)
			}
			each.close(conn, done)
		}
		after := w.reasons(c.t)
		since := func(r bpf.Reason) uint64 { return after[r] - before[r] }
		carried := since(bpf.ZiplineReasonREASON_TRACKED_LOCAL) + since(bpf.ZiplineReasonREASON_TRACKED_UPLINK)
		checkedIn := since(bpf.ZiplineReasonREASON_NEXT_CHECK_IN)
		c.t.Logf("%d connections: %d packets carried, %d checked in", connections, carried, checkedIn)
		// A busy machine may hold up one of them for seconds.
		if carried < 2*connections-2 || checkedIn > connections+2 {
			c.errorf("%d connections: %d packets carried, %d checked in; want two carried of each, and one that checks in",
				connections, carried, checkedIn)
		}
	}))
}

// runAll publishes the services of the cases and runs them one after the other.
func (w *agreeWorld) runAll(t *testing.T, cases []agreeCase) {
	t.Helper()
	w.publish(t, cases)
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			c.run(&agreeRun{agreeWorld: w, t: t, name: c.name, port: uint16(firstPort + i*portsPerCase)})
		})
	}
}

// wantAccelerated compares what was counted during a transfer.
func wantAccelerated(t *testing.T, before, after map[bpf.Reason]uint64) {
	t.Helper()
	var fast, all uint64
	slow := map[string]uint64{}
	for reason, packets := range after {
		packets -= before[reason]
		if packets == 0 || !ofFlow(reason) {
			continue
		}
		all += packets
		if reason.Verdict() == bpf.VerdictRedirect {
			fast += packets
		} else {
			slow[reason.String()] += packets
		}
	}
	t.Logf("%d of %d packets by eBPF (%.2f %%), the rest %v", fast, all, 100*float64(fast)/float64(all), slow)
	if all < 500 || fast*100 <= all*99 {
		t.Errorf("%d of %d packets were carried by eBPF; want more than 99 of 100", fast, all)
	}
}

// bulkTCP sends and receives at the same time. Measured is the transfer with the
// opening and the end of its connection.
func (l flow) bulkTCP(measure func()) {
	data := l.c.payload(bulkBytes, 0)
	done := l.serveTCP(func(conn net.Conn) error {
		sent := make(chan error, 1)
		go func() {
			_, err := conn.Write(data)
			sent <- err
		}()
		return errors.Join(readBack(conn, data), <-sent, waitForEnd(conn))
	})
	measure()
	conn := l.mustDial("tcp")
	if err := roundTrip(conn, data); err != nil {
		l.c.errorf("%v", err)
		return
	}
	l.finish(conn, done)
}

func waitForEnd(conn net.Conn) error {
	_, err := io.Copy(io.Discard, conn)
	return err
}

// bulkUDP keeps a few datagrams on their way and has each one sent back. Some may
// be lost on a busy machine.
func (l flow) bulkUDP(measure func()) {
	large := option(unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20)
	l.serveUDP(large)
	measure()
	conn := l.mustDial("udp", large)
	const window = 16
	data, buf := l.c.payload(1000, 0), make([]byte, 2000)
	received, lost := 0, 0
	for sent := 0; sent < bulkDatagrams; {
		for range window {
			if _, err := conn.Write(data); err != nil {
				l.c.errorf("datagram %d: %v", sent, err)
				return
			}
			sent++
		}
		for received < sent {
			if err := conn.SetReadDeadline(time.Now().Add(testrig.Patience / 4)); err != nil {
				l.c.errorf("%v", err)
				return
			}
			if _, err := conn.Read(buf); err != nil {
				lost += sent - received
				received = sent
				break
			}
			received++
		}
	}
	if lost > bulkDatagrams/10 {
		l.c.errorf("%d of %d datagrams were lost", lost, bulkDatagrams)
	}
}
