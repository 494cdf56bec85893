// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"net"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/zipline-cni/zipline/bpf"
	"github.com/zipline-cni/zipline/internal/testutil"
)

// outdate makes the node's program that of another version: what tells versions
// apart is the record.
func outdate(tb testing.TB, n *Node) {
	tb.Helper()
	rec, err := readRecord(n.dir)
	must(tb, err)
	rec.Digest = "0123456789abcdef0123456789abcdef"
	must(tb, rec.write(n.dir))
}

func TestAnotherVersionIsReplacedEverywhere(t *testing.T) {
	for hook, site := range sites {
		t.Run(hook, func(t *testing.T) {
			enterNode(t)
			a, b := newContainer(t, 1, "10.1.0.1/24"), newContainer(t, 2, "10.1.0.2/24")
			old := a.publish(t, site)
			b.publish(t, site)
			outdate(t, old)

			found, err := site.Find(0)
			must(t, err)
			wantSame(t, found, old) // Find replaces nothing
			_ = found.Close()

			renewed := mustOpen(t, site, 0)
			if renewed.info.id == old.info.id || !renewed.sameMaps(old.set) {
				t.Errorf("program %d maps %v, want another than %d, maps %v", renewed.info.id, renewed.mapIDs, old.info.id, old.mapIDs)
			}
			for _, c := range []*container{a, b} {
				must(t, renewed.Attached(c.index))
				wantError(t, old.Attached(c.index), ErrOtherVersion)
				ids, err := site.attachedIDs(c.index, fromEndpoint)
				if len(ids) != 1 || err != nil {
					t.Errorf("programs %v on the device (%v), want one", ids, err)
				}
			}
			wantSame(t, mustOpen(t, site, 0), renewed)
			must(t, echo(a, b, "tcp4", 1000))
		})
	}
}

// The stack of the node forwards nothing, so a packet that met no program, or
// two, would be lost or late.
func TestAReplacementLosesNoPacket(t *testing.T) {
	for hook, site := range sites {
		t.Run(hook, func(t *testing.T) {
			enterNode(t)
			a, b := newContainer(t, 1, "10.1.0.1/24"), newContainer(t, 2, "10.1.0.2/24")
			node := a.publish(t, site)
			b.publish(t, site)
			s := newStream(t, a, b)
			for range 10 {
				outdate(t, node)
				renewed := mustOpen(t, site, 0)
				if renewed.info.id == node.info.id {
					t.Fatal("the program was not replaced")
				}
				node = renewed
				time.Sleep(10 * time.Millisecond)
			}
			sent := s.WantAll(t, "replaced")
			if have := count(t, node, bpf.ZiplineReasonREASON_DIRECT); have < uint64(sent) {
				t.Errorf("%d packets carried directly, want at least %d", have, sent)
			}
		})
	}
}

// Whoever is killed while it replaces has not written the record, so the next
// Open begins again, whatever was done.
func TestAnUnfinishedReplacementIsFinished(t *testing.T) {
	enterNode(t)
	a, b := newContainer(t, 1, "10.1.0.1/24"), newContainer(t, 2, "10.1.0.2/24")
	old := a.publish(t, Site{})
	b.publish(t, Site{})
	outdate(t, old)
	next, _, err := load(old.set)
	must(t, err)
	must(t, Site{}.attach(next, a.index, fromEndpoint)) // … and killed
	next.close()
	renewed := mustOpen(t, Site{}, 0)
	if !renewed.sameMaps(old.set) {
		t.Errorf("maps %v, want %v", renewed.mapIDs, old.mapIDs)
	}
	must(t, renewed.Attached(a.index))
	must(t, renewed.Attached(b.index))
}

func TestANodeObjectFollowsAReplacement(t *testing.T) {
	enterNode(t)
	a, b := newContainer(t, 1), newContainer(t, 2)
	old := mustOpen(t, Site{}, a.index)
	outdate(t, old)
	renewed := mustOpen(t, Site{}, 0)
	must(t, old.Attach(b.index))
	wantSame(t, old, renewed)
	must(t, renewed.Attached(b.index))
}

func TestARecordSaysWhetherAProgramIsCurrent(t *testing.T) {
	enterNode(t)
	if !conntrackModule() {
		t.Fatal("this kernel has no conntrack")
	}
	for _, c := range []struct {
		name string
		rec  record
		want bool
	}{
		{"the same object", record{Digest: "a", Conntrack: true, Module: true}, true},
		{"another object", record{Digest: "b", Conntrack: true, Module: true}, false},
		{"a kernel that cannot look up conntrack", record{Digest: "a", Module: true}, true},
		{"conntrack came after the program", record{Digest: "a"}, false},
	} {
		if have := c.rec.current("a"); have != c.want {
			t.Errorf("%s: current is %v, want %v", c.name, have, c.want)
		}
		c.rec.Programs = map[string]programID{
			bpf.ZiplineProgFromEndpoint: {ID: 7, Tag: "0123456789abcdef", LoadTime: 1 << 40},
			bpf.ZiplineProgFromUplink:   {ID: 8, Tag: "fedcba9876543210", LoadTime: 1<<40 + 1},
		}
		parsed, err := parseRecord(c.rec.format())
		must(t, err)
		if !reflect.DeepEqual(*parsed, c.rec) {
			t.Errorf("%s: %+v reads back as %+v", c.name, c.rec, parsed)
		}
	}
}

func newStream(tb testing.TB, from, to *container) *testutil.Stream {
	tb.Helper()
	addr := net.UDPAddrFromAddrPort(netip.AddrPortFrom(to.prefixes[0].Addr(), 9))
	var in, out *net.UDPConn
	must(tb, to.do(func() (err error) {
		in, err = net.ListenUDP("udp4", addr)
		return err
	}))
	must(tb, from.do(func() (err error) {
		out, err = net.DialUDP("udp4", nil, addr)
		return err
	}))
	return testutil.NewStream(tb, in, out)
}
