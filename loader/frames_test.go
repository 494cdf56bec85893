// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"github.com/zipline-cni/zipline/bpf"
	"github.com/zipline-cni/zipline/internal/testrig"
)

// What a test run cannot make: tags that the kernel has taken off, headers that
// are cut off, packets that are not linear, packets of more than 64 KiB.

// watch is a program that notes what packets look like before ours sees them.
type watch struct{ notes *ebpf.Map }

// The notes: length of the linear part of the last packet, length of the
// largest packet.
const (
	noteLinear  = 0
	noteLargest = 1
)

func newWatch(tb testing.TB, index int) *watch {
	tb.Helper()
	notes, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 16, MaxEntries: 1})
	must(tb, err)
	const length, data, dataEnd = 0, 76, 80 // offsets in struct __sk_buff
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{
		asm.LoadMem(asm.R6, asm.R1, length, asm.Word),
		asm.LoadMem(asm.R7, asm.R1, dataEnd, asm.Word),
		asm.LoadMem(asm.R8, asm.R1, data, asm.Word),
		asm.Sub.Reg(asm.R7, asm.R8),
		asm.StoreImm(asm.RFP, -4, 0, asm.Word),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.LoadMapPtr(asm.R1, notes.FD()),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
		asm.StoreMem(asm.R0, 8*noteLinear, asm.R7, asm.DWord),
		asm.LoadMem(asm.R1, asm.R0, 8*noteLargest, asm.DWord),
		asm.JGE.Reg(asm.R1, asm.R6, "out"),
		asm.StoreMem(asm.R0, 8*noteLargest, asm.R6, asm.DWord),
		asm.Mov.Imm(asm.R0, -1).WithSymbol("out"),
		asm.Return(),
	}})
	must(tb, err)
	defer func() { _ = prog.Close() }()
	attachForeign(tb, prog, index, link.Head())
	tb.Cleanup(func() { _ = notes.Close() })
	return &watch{notes}
}

func (w *watch) note(tb testing.TB, which int) uint64 {
	tb.Helper()
	var values [2]uint64
	must(tb, w.notes.Lookup(uint32(0), &values))
	return values[which]
}

// tagged puts VLAN tags behind the MACs of a frame.
func tagged(frame []byte, ids ...uint16) []byte {
	out := append([]byte(nil), frame[:12]...)
	for _, id := range ids {
		out = binary.BigEndian.AppendUint16(out, 0x8100)
		out = binary.BigEndian.AppendUint16(out, id)
	}
	return append(out, frame[12:]...)
}

func TestFramesFromTheWire(t *testing.T) {
	enterNode(t)
	a, b := newContainer(t, 1, "10.1.0.1/24", "fd00:1::1/64"), newContainer(t, 2, "10.1.0.2/24", "fd00:1::2/64")
	node := a.publish(t, Site{})
	b.publish(t, Site{})
	const priority = 3 << 13 // in the upper bits of a tag, with id 0
	plain := func(from, to string) []byte {
		packet := testrig.UDP(netip.MustParseAddrPort(from), netip.MustParseAddrPort(to), []byte("x"))
		return testrig.Ethernet(a.hostMAC, a.mac, packet)
	}
	right, wrong := plain("10.1.0.1:1", "10.1.0.2:2"), plain("10.1.0.66:1", "10.1.0.2:2")
	right6, wrong6 := plain("[fd00:1::1]:1", "[fd00:1::2]:2"), plain("[fd00:1::66]:1", "[fd00:1::2]:2")
	arp := append(append(append([]byte(nil), testrig.Broadcast...), a.mac...), 8, 6, 0, 1, 8, 0, 6, 4, 0, 1)
	arp = append(append(arp, a.mac...), 10, 1, 0, 1, 0, 0, 0, 0, 0, 0, 10, 1, 0, 2)
	for _, c := range []struct {
		name  string
		frame []byte
		want  bpf.Reason
	}{
		{"no tag", right, bpf.ZiplineReasonREASON_DIRECT},
		{"no tag, ipv6", right6, bpf.ZiplineReasonREASON_DIRECT},
		{"a vlan tag", tagged(right, 5), bpf.ZiplineReasonREASON_NEXT_VLAN},
		{"a vlan tag before a foreign address", tagged(wrong, 5), bpf.ZiplineReasonREASON_NEXT_VLAN},
		{"a priority tag", tagged(right, priority), bpf.ZiplineReasonREASON_NEXT_VLAN},
		{"a priority tag, ipv6", tagged(right6, priority), bpf.ZiplineReasonREASON_NEXT_VLAN},
		{"a priority tag before a foreign address", tagged(wrong, priority), bpf.ZiplineReasonREASON_DROP_SOURCE},
		{"a priority tag before a foreign address, ipv6", tagged(wrong6, priority), bpf.ZiplineReasonREASON_DROP_SOURCE},
		{"two priority tags", tagged(wrong, priority, priority), bpf.ZiplineReasonREASON_DROP_VLAN},
		{"an arp request", arp, bpf.ZiplineReasonREASON_ARP_REPLY},
		{"a tagged arp request", tagged(arp, priority), bpf.ZiplineReasonREASON_NEXT_VLAN},
		{"an ipv4 header that is cut off", right[:14+19], bpf.ZiplineReasonREASON_NEXT_MALFORMED},
		{"an ipv6 header that is cut off", right6[:14+39], bpf.ZiplineReasonREASON_NEXT_MALFORMED},
	} {
		before := count(t, node, c.want)
		must(t, a.do(func() error { return testrig.SendFrame("eth0", c.frame) }))
		if have := waitCount(t, node, c.want, before+1); have != before+1 {
			counters, _ := node.Counters()
			t.Errorf("%s: not counted as %q: %v", c.name, c.want, counters)
		}
	}
}

func TestPacketsThatAreNotLinearAreReadAllTheSame(t *testing.T) {
	enterNode(t)
	requireTCX(t) // to watch
	a, b := newContainer(t, 1, "10.1.0.1/24", "fd00:1::1/64"), newContainer(t, 2, "10.1.0.2/24", "fd00:1::2/64")
	node := a.publish(t, Site{})
	b.publish(t, Site{})
	w := newWatch(t, a.index)
	for _, c := range []struct {
		from, to string
		want     bpf.Reason
	}{
		{"10.1.0.1:1", "10.1.0.2:9", bpf.ZiplineReasonREASON_DIRECT},
		{"10.1.0.66:1", "10.1.0.2:9", bpf.ZiplineReasonREASON_DROP_SOURCE},
		{"[fd00:1::1]:1", "[fd00:1::2]:9", bpf.ZiplineReasonREASON_DIRECT},
		{"[fd00:1::66]:1", "[fd00:1::2]:9", bpf.ZiplineReasonREASON_DROP_SOURCE},
	} {
		var conn *net.UDPConn
		to := netip.MustParseAddrPort(c.to)
		must(t, b.do(func() (err error) {
			conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(to))
			return err
		}))
		packet := testrig.UDP(netip.MustParseAddrPort(c.from), to, []byte("payload"))
		linear := uint64(0)
		// The note is about the last packet, which may be one that the
		// container's kernel sends of its own accord (MLD).
		for try := 0; try < 5 && linear != 14; try++ {
			before := count(t, node, c.want)
			must(t, a.do(func() error { return testrig.SendNonLinear("eth0", testrig.Ethernet(a.hostMAC, a.mac, packet)) }))
			if have := waitCount(t, node, c.want, before+1); have != before+1 {
				counters, _ := node.Counters()
				t.Errorf("%s to %s: not counted as %q: %v", c.from, c.to, c.want, counters)
			}
			linear = uint64(w.note(t, noteLinear))
		}
		if linear != 14 {
			t.Errorf("the linear part is %d bytes: this is no test of packets that are not linear", linear)
		}
		if c.want == bpf.ZiplineReasonREASON_DIRECT {
			must(t, conn.SetReadDeadline(time.Now().Add(testrig.Timeout)))
			buf := make([]byte, 20)
			if n, err := conn.Read(buf); err != nil || string(buf[:n]) != "payload" {
				t.Errorf("%s received %q: %v", c.to, buf[:n], err)
			}
		}
		must(t, conn.Close())
	}
}

func TestBigTCPIsCarriedDirectly(t *testing.T) {
	for _, network := range []string{"tcp4", "tcp6"} {
		t.Run(network, func(t *testing.T) {
			enterNode(t)
			requireTCX(t) // to watch; big packets of IPv4 are older (6.3)
			a, b := newContainer(t, 1, "10.1.0.1/24", "fd00:1::1/64"), newContainer(t, 2, "10.1.0.2/24", "fd00:1::2/64")
			node := a.publish(t, Site{})
			b.publish(t, Site{})
			for i, c := range []*container{a, b} {
				must(t, growPackets(fmt.Sprintf("zl%013x", i+1)))
				must(t, c.do(func() error { return growPackets("eth0") }))
			}
			w := newWatch(t, a.index)
			before := count(t, node, bpf.ZiplineReasonREASON_NEXT_OPTIONS)
			must(t, echo(a, b, network, 256<<20))
			if largest := w.note(t, noteLargest); largest < 70000 {
				t.Errorf("the largest packet has %d bytes: this is no test of big tcp", largest)
			}
			if left := count(t, node, bpf.ZiplineReasonREASON_NEXT_OPTIONS) - before; left > 0 {
				t.Errorf("%d packets with options were left to the stack", left)
			}
		})
	}
}

func growPackets(name string) error {
	const size = 192 << 10
	device, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	for _, set := range []func(netlink.Link, int) error{
		netlink.LinkSetGSOMaxSize, netlink.LinkSetGROMaxSize, netlink.LinkSetGSOIPv4MaxSize, netlink.LinkSetGROIPv4MaxSize,
	} {
		if err := set(device, size); err != nil {
			return err
		}
	}
	return nil
}

// waitCount waits for a counter to reach a value: what a socket sends may pass
// the program a moment later, on another CPU.
func waitCount(tb testing.TB, n *Node, reason bpf.Reason, want uint64) uint64 {
	tb.Helper()
	for range 200 {
		if have := count(tb, n, reason); have >= want {
			return have
		}
		time.Sleep(5 * time.Millisecond)
	}
	return count(tb, n, reason)
}
