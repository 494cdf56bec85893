// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/testrig"
	"github.com/zipline-cni/zipline/internal/testutil"
)

// A packet whose sum the kernel has taken (CHECKSUM_COMPLETE) has two that must
// be mended: the one in the packet and the kernel's own, over all of it. A test
// run makes no such packets, and few cards do; but a tunnel does, which has
// checked its outer checksum and subtracts what it takes off.
func TestTheKernelsOwnSumIsMendedToo(t *testing.T) {
	w := newTrackingWorld(t)
	tunnel, err := w.setTunnel(t)
	if errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, unix.EOPNOTSUPP) {
		testutil.RequireKernel(t, "vxlan and tcx (6.6)", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	watch := w.watchContainer(t, w.peers["b"])
	eachProtocol(t, func(t *testing.T, protocol byte, v6 bool) {
		if v6 && !w.mendsIPv6 {
			t.Skip("the programs leave it to the stack where the kernel has no BPF_F_IPV6")
		}
		for _, n := range w.translations() {
			if n.client != remote || n.server != w.peers["b"].addrs() {
				continue
			}
			t.Run(n.name, func(t *testing.T) {
				e := n.entry(protocol, v6)
				w.add(t, e)
				defer w.remove(t, e)
				p := e.packet(w, original, false).as(tunnel)
				want, _ := e.carried(w, original, p)
				got := w.sendUntilSeen(t, e, watch, outer(w.uplink, p.bytes()))
				if string(got.frame) != string(want.bytes()) {
					t.Errorf("the container gets\n%x, want\n%x", got.frame, want.bytes())
				}
				if sum := onesSum(got.frame[14:], 0); got.sum < 0 || foldSum(uint32(got.sum)) != sum {
					t.Errorf("the kernel's sum is %#x, that of the packet %#x", got.sum, sum)
				}
			})
		}
	})
}

// foldSum is the kernel's sum as it would be in a packet.
func foldSum(sum uint32) uint16 {
	b := binary.NativeEndian.AppendUint32(nil, sum)
	return onesSum(b, 0)
}

// setTunnel makes a VXLAN device on the node and lets from_uplink run there.
func (w *world) setTunnel(t *testing.T) (*peer, error) {
	tunnel := &peer{name: "uplink", host: net.HardwareAddr{2, 0, 0, 0, 5, 1}, mac: net.HardwareAddr{2, 0, 0, 0, 5, 2}}
	return tunnel, w.do(func() error {
		vxlan := &netlink.Vxlan{LinkAttrs: netlink.NewLinkAttrs(), VxlanId: 1, Port: 4789, UDPCSum: true}
		vxlan.Name, vxlan.HardwareAddr = "vxlan0", tunnel.host
		if err := netlink.LinkAdd(vxlan); err != nil {
			return fmt.Errorf("add vxlan: %w", err)
		}
		tunnel.index = vxlan.Index
		if err := netlink.LinkSetUp(vxlan); err != nil {
			return err
		}
		if err := attachIngress(t, w.objs.FromUplink, vxlan.Index); err != nil {
			return err
		}
		return w.objs.Uplinks.Put(uint32(vxlan.Index), ZiplineUplink{})
	})
}

// outer puts a frame into a VXLAN packet to the node, with a UDP checksum.
func outer(uplink *peer, frame []byte) []byte {
	p := tcp(uplink, nodeIP[0])
	p.src, p.protocol, p.sport, p.dport = remote[0], unix.IPPROTO_UDP, 12345, 4789
	p.payload = append([]byte{8, 0, 0, 0, 0, 0, 1, 0}, frame...)
	return p.bytes()
}

// seen is a packet that a container got.
type seen struct {
	sum   int64 // the kernel's, below 0 if it has none
	frame []byte
}

// watcher is a program at a container's device that notes what comes.
type watcher struct{ notes *ebpf.Map }

const noted = 256 // bytes of a frame at most

// watchContainer takes the container's device to a namespace of its own, which
// is where redirect_peer delivers, and notes and drops what comes there.
func (w *world) watchContainer(t *testing.T, p *peer) *watcher {
	t.Helper()
	notes, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 16 + noted, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = notes.Close() })
	host, err := netlinkIn(w, func() (netlink.Link, error) { return netlink.LinkByIndex(p.index) })
	if err != nil {
		t.Fatal(err)
	}
	name := "c" + host.Attrs().Name[1:]
	container := &world{jobs: make(chan func())}
	ready := make(chan error)
	go container.serve(ready)
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { close(container.jobs) })
	namespace, err := netlinkIn(container, func() (int, error) {
		return unix.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(namespace) }()
	err = w.do(func() error {
		end, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		return errors.Join(netlink.LinkSetNsFd(end, namespace), netlink.LinkSetUp(host))
	})
	if err != nil {
		t.Fatal(err)
	}
	err = container.do(func() error { return watch(t, name, notes) })
	if err != nil {
		t.Fatal(err)
	}
	return &watcher{notes}
}

func netlinkIn[T any](w *world, f func() (T, error)) (result T, err error) {
	err = w.do(func() (err error) {
		result, err = f()
		return err
	})
	return result, err
}

// watch attaches the program: it asks for the kernel's sum by adding 0 to it,
// and copies the frame.
func watch(t *testing.T, device string, notes *ebpf.Map) error {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMapValue(asm.R7, notes.FD(), 0),
		asm.LoadMem(asm.R8, asm.R6, 0, asm.Word), // len
		asm.JGT.Imm(asm.R8, noted, "out"),
		asm.JLT.Imm(asm.R8, 42, "out"), // the verifier wants a bound
		asm.Mov.Imm(asm.R2, 0),
		asm.FnCsumUpdate.Call(),
		asm.StoreMem(asm.R7, 8, asm.R0, asm.DWord),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Imm(asm.R2, 0),
		asm.Mov.Reg(asm.R3, asm.R7),
		asm.Add.Imm(asm.R3, 16),
		asm.Mov.Reg(asm.R4, asm.R8),
		asm.FnSkbLoadBytes.Call(),
		asm.StoreMem(asm.R7, 0, asm.R8, asm.DWord),
		asm.Mov.Imm(asm.R0, dropVerdict).WithSymbol("out"),
		asm.Return(),
	}})
	if err != nil {
		return fmt.Errorf("load watcher: %w", err)
	}
	t.Cleanup(func() { _ = program.Close() })
	end, err := netlink.LinkByName(device)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(end); err != nil {
		return err
	}
	return attachIngress(t, program, end.Attrs().Index)
}

// sendUntilSeen sends the frame from outside until the container gets one with
// the flow's addresses.
func (w *world) sendUntilSeen(t *testing.T, e *entry, watch *watcher, frame []byte) seen {
	t.Helper()
	if err := watch.notes.Put(uint32(0), make([]byte, 16+noted)); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		w.admit(t, e, original|replying)
		if err := w.do(func() error { return testrig.SendFrame("up0p", frame) }); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			note, err := watch.notes.LookupBytes(uint32(0))
			if err != nil {
				t.Fatal(err)
			}
			length := binary.NativeEndian.Uint64(note)
			if got := note[16:]; length > 0 && addressed(got, e.reply[0].Addr()) {
				return seen{int64(binary.NativeEndian.Uint64(note[8:])), got[:length]}
			}
			time.Sleep(2 * time.Millisecond)
		}
	}
	t.Fatal("the container gets nothing")
	return seen{}
}

// addressed says whether the frame is for this address: the kernel sends others
// of its own accord.
func addressed(frame []byte, addr netip.Addr) bool {
	at := 14 + 16
	if addr.Is6() {
		at = 14 + 24
	}
	return string(frame[at:at+addr.BitLen()/8]) == string(addr.AsSlice())
}
