// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/rlimit"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/testutil"
)

// The flags of enum endpoint_flags in lib/maps.h, which have no BTF of their own.
const (
	sourceCheck = 1
	macCheck    = 2
	direct      = 4
	tracked     = 8
)

// Networks of the world.
const (
	net4, net6   = 0x0400000004, 0x0600000006
	other4       = 0x0400000005
	other6       = 0x0600000005
	tcpPort      = 80
	clientPort   = 40000
	defaultMTU   = 1500
	nextVerdict  = -1
	dropVerdict  = 2
	redirVerdict = 7
	slowMark     = 0x10
	// Fewer than there are: each run reads all counters.
	worldSlots = 4
)

// peer is an endpoint of the test world: a host veth, and what the maps say.
type peer struct {
	name       string
	v4, v6     netip.Addr
	extra      netip.Addr // a second IPv4 address of the device
	index      int
	mac, host  net.HardwareAddr
	mtu        uint32
	flags      uint32
	slowMark   uint32
	net4, net6 uint64
	slot, path uint16 // where its packets are counted
}

// world is a loaded program in a network namespace with devices to run it on.
type world struct {
	objs  ZiplineObjects
	peers map[string]*peer
	jobs  chan func()
	// uplink is where from_uplink gets its packets.
	uplink *peer
	// attached says that from_uplink also sees what the kernel sends there.
	attached bool
	stage    *stage
	// mendsIPv6 says whether the kernel can mend any IPv6 checksum (BPF_F_IPV6).
	mendsIPv6 bool
	// renewed is when the fixed flows of the model were last given their timeout.
	renewed time.Time
	ports   ports
}

func peers() []*peer {
	mk := func(number byte, name string, flags uint32) *peer {
		return &peer{
			name:  name,
			v4:    netip.AddrFrom4([4]byte{10, 1, 0, number}),
			v6:    netip.AddrFrom16([16]byte{0xfd, 0, 0, 1, 15: number}),
			mac:   net.HardwareAddr{2, 0, 0, 0, 1, number},
			host:  net.HardwareAddr{2, 0, 0, 0, 2, number},
			mtu:   defaultMTU,
			flags: flags, net4: net4, net6: net6,
			slot: 1 + uint16(number)%(worldSlots-1), path: PathSlots - uint16(number),
		}
	}
	const usual = sourceCheck | direct | tracked
	a := mk(1, "a", usual)
	a.extra = netip.MustParseAddr("10.1.0.101")
	small := mk(3, "small", usual)
	small.mtu = 1400
	stranger := mk(5, "stranger", usual)
	stranger.net4, stranger.net6 = other4, other6
	lonely, lonelyToo := mk(10, "lonely", usual), mk(11, "lonely too", usual)
	for _, p := range []*peer{lonely, lonelyToo} {
		p.net4, p.net6 = 0, 0
	}
	marked := mk(13, "marked", usual)
	marked.slowMark = slowMark
	return []*peer{
		lonely, lonelyToo, a, mk(2, "b", usual), small, mk(4, "tracked", sourceCheck|tracked), stranger,
		mk(6, "pinned", usual|macCheck), mk(7, "unchecked", direct|tracked), mk(8, "unpublished", 0),
		mk(9, "unchecked pinned", macCheck|direct|tracked), mk(12, "untracked", sourceCheck|direct), marked,
	}
}

// newWorld loads the programs in a namespace of their own. It lives as long as
// the test.
func newWorld(tb testing.TB, conntrack bool) *world {
	tb.Helper()
	testutil.RequireRoot(tb)
	w := &world{peers: map[string]*peer{}, jobs: make(chan func())}
	ready := make(chan error)
	go w.serve(ready)
	if err := <-ready; err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { close(w.jobs) })
	tb.Cleanup(func() { _ = w.objs.Close() })
	for _, step := range []func() error{func() error { return w.load(conntrack) }, w.connect, w.setStage} {
		if err := w.do(step); err != nil {
			tb.Fatalf("%+v", err)
		}
	}
	tb.Cleanup(w.stage.close)
	return w
}

// haveConntrack returns nil or why the kernel does not take the probe.
var haveConntrack = sync.OnceValue(func() error {
	// Kernels before 5.11 charge maps and programs to this limit.
	if err := rlimit.RemoveMemlock(); err != nil {
		return err
	}
	spec, err := LoadZipline()
	if err != nil {
		return err
	}
	prog, err := ebpf.NewProgram(spec.Programs[ZiplineProgProbeConntrack])
	if err != nil {
		return err
	}
	return prog.Close()
})

// newTrackingWorld is a world in which the programs ask conntrack.
func newTrackingWorld(tb testing.TB) *world {
	tb.Helper()
	testutil.RequireRoot(tb)
	testutil.RequireKernel(tb, "conntrack functions", haveConntrack())
	return newWorld(tb, true)
}

// serve runs jobs in the namespace. The thread ends with it.
func (w *world) serve(ready chan<- error) {
	runtime.LockOSThread()
	ready <- unix.Unshare(unix.CLONE_NEWNET)
	for job := range w.jobs {
		job()
	}
}

func (w *world) do(f func() error) error {
	result := make(chan error)
	w.jobs <- func() { result <- f() }
	return <-result
}

func (w *world) load(conntrack bool) error {
	spec, err := LoadZipline()
	if err != nil {
		return err
	}
	// Where the kernel has no conntrack functions all else is tested without.
	if err := spec.Variables[ZiplineVarHaveConntrack].Set(conntrack && haveConntrack() == nil); err != nil {
		return err
	}
	if haveConntrack() != nil {
		spec.Programs[ZiplineProgProbeConntrack].Instructions = asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}
	}
	if err := spec.Variables[ZiplineVarTickHz].Set(tickRate()); err != nil {
		return err
	}
	spec.Maps[ZiplineMapCounters].MaxEntries = worldSlots * Hooks * Reasons
	if err := loadObjects(spec, &w.objs); err != nil {
		return err
	}
	for _, p := range peers() {
		w.peers[p.name] = p
		veth := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: fmt.Sprintf("c%d", len(w.peers))}
		veth.Name = fmt.Sprintf("h%d", len(w.peers))
		veth.HardwareAddr = p.host
		if err := netlink.LinkAdd(veth); err != nil {
			return fmt.Errorf("add veth: %w", err)
		}
		p.index = veth.Index
		if err := w.publish(p); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) publish(p *peer) error {
	if p.name == "unpublished" {
		p.slot, p.path = 0, 0
		return nil
	}
	dev := ZiplineDevice{Networks: [4]uint64{0: p.net4, 3: p.net6}, Mac: [6]byte(p.mac), HostMac: [6]byte(p.host), Flags: p.flags}
	dev.Slots.Network, dev.Slots.Path = p.slot, p.path
	if err := w.objs.Devices.Put(uint32(p.index), dev); err != nil {
		return err
	}
	ep := ZiplineEndpoint{Ifindex: uint32(p.index), Mtu: p.mtu, Mac: [6]byte(p.mac), HostMac: [6]byte(p.host), Flags: p.flags, SlowPathMark: p.slowMark}
	ep.Slots = dev.Slots
	for _, addr := range []netip.Addr{p.v4, p.v6, p.extra} {
		if !addr.IsValid() {
			continue
		}
		ep.Network = p.net6
		if addr.Is4() {
			ep.Network = p.net4
		}
		if err := w.objs.Endpoints.Put(key(addr), ep); err != nil {
			return err
		}
	}
	return nil
}

func key(addr netip.Addr) (k ZiplineAddress) {
	b := addr.As16()
	for i := range k.W {
		k.W[i] = binary.NativeEndian.Uint32(b[4*i:])
	}
	return k
}

// skBuff is struct __sk_buff of include/uapi/linux/bpf.h.
type skBuff struct {
	Len, PktType, Mark, QueueMapping, Protocol, VlanPresent, VlanTCI, VlanProto uint32
	Priority, IngressIfindex, Ifindex, TCIndex                                  uint32
	CB                                                                          [5]uint32
	Hash, TCClassID, Data, DataEnd, NapiID, Family, RemoteIP4, LocalIP4         uint32
	RemoteIP6, LocalIP6                                                         [4]uint32
	RemotePort, LocalPort, DataMeta                                             uint32
	FlowKeys, Tstamp                                                            uint64
	WireLen, GSOSegs                                                            uint32
	SK                                                                          uint64
	GSOSize, TstampType                                                         uint32
	Hwtstamp                                                                    uint64
}

// tickRate is the kernel's jiffies per second.
func tickRate() uint32 {
	var tick unix.Timespec
	if err := unix.ClockGetres(unix.CLOCK_MONOTONIC_COARSE, &tick); err != nil {
		panic(err)
	}
	return uint32(1e9 / tick.Nano())
}
