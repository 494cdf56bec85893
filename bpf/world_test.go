// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/testutil"
)

// The flags of enum endpoint_flags in lib/maps.h, which have no BTF of their own.
const (
	sourceCheck = 1
	macCheck    = 2
	direct      = 4
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
	net4, net6 uint64
}

// world is a loaded program in a network namespace with devices to run it on.
type world struct {
	objs  ZiplineObjects
	peers map[string]*peer
	jobs  chan func()
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
		}
	}
	a := mk(1, "a", sourceCheck|direct)
	a.extra = netip.MustParseAddr("10.1.0.101")
	small := mk(3, "small", sourceCheck|direct)
	small.mtu = 1400
	stranger := mk(5, "stranger", sourceCheck|direct)
	stranger.net4, stranger.net6 = other4, other6
	lonely, lonelyToo := mk(10, "lonely", sourceCheck|direct), mk(11, "lonely too", sourceCheck|direct)
	for _, p := range []*peer{lonely, lonelyToo} {
		p.net4, p.net6 = 0, 0
	}
	return []*peer{
		lonely, lonelyToo, a, mk(2, "b", sourceCheck|direct), small, mk(4, "tracked", sourceCheck), stranger,
		mk(6, "pinned", sourceCheck|macCheck|direct), mk(7, "unchecked", direct),
		mk(8, "unpublished", 0), mk(9, "unchecked pinned", macCheck|direct),
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
	err := w.do(func() error { return w.load(conntrack) })
	if err != nil {
		tb.Fatalf("%+v", err)
	}
	tb.Cleanup(func() { _ = w.objs.Close() })
	return w
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
	if err := spec.Variables[ZiplineVarHaveConntrack].Set(conntrack); err != nil {
		return err
	}
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
		return nil
	}
	dev := ZiplineDevice{Networks: [4]uint64{0: p.net4, 3: p.net6}, Mac: [6]byte(p.mac), HostMac: [6]byte(p.host), Flags: p.flags}
	if err := w.objs.Devices.Put(uint32(p.index), dev); err != nil {
		return err
	}
	ep := ZiplineEndpoint{Ifindex: uint32(p.index), Mtu: p.mtu, Mac: [6]byte(p.mac), HostMac: [6]byte(p.host), Flags: p.flags}
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

// outcome is what the program did with a packet.
type outcome struct {
	verdict int32
	data    []byte
	mark    uint32
	// counted has what was added to the counters.
	counted map[Reason]ZiplineCounter
}

var runLock sync.Mutex // the counters belong to one run at a time

// run runs from_endpoint on a frame as if it had come from a device.
func (w *world) run(tb testing.TB, frame []byte, ctx skBuff) outcome {
	tb.Helper()
	runLock.Lock()
	defer runLock.Unlock()
	before := w.counters(tb)
	out := skBuff{}
	opts := &ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+256), Context: ctx, ContextOut: &out}
	var ret uint32
	err := w.do(func() (err error) {
		ret, err = w.objs.FromEndpoint.Run(opts)
		return err
	})
	if err != nil {
		tb.Fatalf("run program: %v", err)
	}
	after := w.counters(tb)
	counted := map[Reason]ZiplineCounter{}
	for reason, c := range after {
		c.Packets -= before[reason].Packets
		c.Bytes -= before[reason].Bytes
		if c.Packets != 0 || c.Bytes != 0 {
			counted[reason] = c
		}
	}
	return outcome{verdict: int32(ret), data: opts.DataOut, mark: out.Mark, counted: counted}
}

// counters returns all rows, also those that no reason names.
func (w *world) counters(tb testing.TB) map[Reason]ZiplineCounter {
	tb.Helper()
	keys := make([]uint32, Hooks*Reasons)
	values := make([]ZiplineCounter, len(keys)*ebpf.MustPossibleCPU())
	cursor := ebpf.MapBatchCursor{}
	n, err := w.objs.Counters.BatchLookup(&cursor, keys, values, nil)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		tb.Fatalf("read counters: %v", err)
	}
	rows := make(map[Reason]ZiplineCounter, n)
	for i, row := range keys[:n] {
		var sum ZiplineCounter
		for cpu := range ebpf.MustPossibleCPU() {
			sum.Packets += values[i*ebpf.MustPossibleCPU()+cpu].Packets
			sum.Bytes += values[i*ebpf.MustPossibleCPU()+cpu].Bytes
		}
		rows[Reason(row)] = sum
	}
	return rows
}
