// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/testrig"
)

// world is a node with the ruleset, an outside host and containers, wired by the
// kernel's own means.
type world struct {
	*testrig.World
	tb    testing.TB
	seen  *watcher // of what reaches the outside host
	index int
}

// container is one endpoint, dual stack.
type container struct {
	*testrig.Container
	device           string
	addr4, addr6     netip.Addr
	subnet4, subnet6 netip.Prefix
}

var egress4, egress6 = addr("192.0.2.7"), addr("2001:db8:ffff::7")

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{World: testrig.New(t, testrig.Options{}), tb: t}
	w.Node.SetSysctl(t, "ipv4/ip_forward", "1")
	w.Node.SetSysctl(t, "ipv6/conf/all/forwarding", "1")
	w.node("ip addr add %s/32 dev %s", egress4, testrig.Uplink)
	w.node("ip addr add %s/128 dev %s nodad preferred_lft 0", egress6, testrig.Uplink)
	w.do(func(r *Ruleset) error { return r.Install() })
	w.seen = watch(t, w.Outside)
	return w
}

// attach makes a container in the n-th subnet, in a link group.
func (w *world) attach(name string, subnet int, group uint32) *container {
	w.tb.Helper()
	w.index++
	host := w.index + 1
	c := &container{
		Container: w.Node.NewContainer(w.tb, name), device: "zl" + name,
		addr4:   addr(fmt.Sprintf("10.%d.0.%d", subnet, host)),
		addr6:   addr(fmt.Sprintf("fd00:%d::%d", subnet, host)),
		subnet4: netip.MustParsePrefix(fmt.Sprintf("10.%d.0.0/16", subnet)),
		subnet6: netip.MustParsePrefix(fmt.Sprintf("fd00:%d::/64", subnet)),
	}
	gateway4, gateway6 := c.subnet4.Addr().Next(), c.subnet6.Addr().Next()
	w.node("ip link add %s group %d type veth peer name eth0 netns %s", c.device, group, c.Path)
	w.node("ip addr add %s/32 dev %s", gateway4, c.device)
	w.node("ip addr add %s/128 dev %s nodad", gateway6, c.device)
	w.node("ip link set %s up", c.device)
	w.node("ip route add %s/32 dev %s", c.addr4, c.device)
	w.node("ip route add %s/128 dev %s", c.addr6, c.device)
	c.MustRun(w.tb, "ip", "link", "set", "eth0", "up")
	c.addAddress(w.tb, c.addr4)
	c.addAddress(w.tb, c.addr6)
	for _, gateway := range []netip.Addr{gateway4, gateway6} {
		c.MustRun(w.tb, "ip", "route", "add", gateway.String(), "dev", "eth0")
	}
	c.MustRun(w.tb, "ip", "route", "add", "default", "via", gateway4.String(), "src", c.addr4.String())
	c.MustRun(w.tb, "ip", "route", "add", "default", "via", gateway6.String(), "src", c.addr6.String())
	return c
}

func (c *container) addAddress(tb testing.TB, a netip.Addr) {
	tb.Helper()
	c.MustRun(tb, "ip", "addr", "add", netip.PrefixFrom(a, a.BitLen()).String(), "dev", "eth0", "nodad")
}

// sources are the container's addresses with an action. The address to
// translate to is the node's second one.
func (c *container) sources(a Action, exempt ...string) []Source {
	all := []Source{
		{Address: c.addr4, Subnet: c.subnet4, Action: a, To: egress4},
		{Address: c.addr6, Subnet: c.subnet6, Action: a, To: egress6},
	}
	for _, p := range prefixes(exempt...) {
		i := 0
		if p.Addr().Is6() {
			i = 1
		}
		all[i].Exempt = append(all[i].Exempt, p)
	}
	return all
}

func (c *container) owner() Owner { return owner(c.device, "net") }

// node runs a command line in the node.
func (w *world) node(format string, args ...any) string {
	w.tb.Helper()
	words := strings.Fields(fmt.Sprintf(format, args...))
	return w.Node.MustRun(w.tb, words[0], words[1:]...)
}

// do calls f with a connection in the node.
func (w *world) do(f func(*Ruleset) error) {
	w.tb.Helper()
	err := w.Node.Do(func() error {
		r, err := Open()
		if err != nil {
			return err
		}
		return errors.Join(f(r), r.Close())
	})
	if err != nil {
		w.tb.Fatal(err)
	}
}

func (w *world) add(c *container, opts Options, sources ...Source) {
	w.tb.Helper()
	w.do(func(r *Ruleset) error { return r.Add(c.owner(), sources, opts) })
}

// drops returns the packets that the drop rules with a comment have counted.
func (w *world) drops(comment string) int {
	w.tb.Helper()
	text := w.node("nft list table inet " + TableName)
	found := regexp.MustCompile(`counter packets (\d+) bytes \d+ drop comment "`+comment).FindAllStringSubmatch(text, -1)
	if found == nil {
		w.tb.Fatalf("no drop rule with comment %q in:\n%s", comment, text)
	}
	sum := 0
	for _, rule := range found {
		n, _ := strconv.Atoi(rule[1])
		sum += n
	}
	return sum
}

const (
	forgedSource = "source address is not routed"
	forgedMAC    = "source MAC is not"
	untranslated = "conntrack cannot translate"
	isolated     = "isolated endpoints do not reach"
	longEnough   = 300 * time.Millisecond // for a packet that must not come
)

// watcher notes the source of every IP packet that a namespace receives on its
// uplink.
type watcher struct {
	mu      sync.Mutex
	sources map[netip.Addr]int
}

func watch(tb testing.TB, ns *testrig.Namespace) *watcher {
	tb.Helper()
	fd := -1
	err := ns.Do(func() (err error) {
		const everything = 0x0300 // htons(ETH_P_ALL)
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, everything)
		if err != nil {
			return err
		}
		return unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 20000})
	})
	if err != nil {
		tb.Fatalf("watch %s: %v", ns.Name, err)
	}
	w := &watcher{sources: map[netip.Addr]int{}}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		buf := make([]byte, 64)
		for {
			select {
			case <-stop:
				return
			default:
			}
			n, from, err := unix.Recvfrom(fd, buf, 0)
			if link, ok := from.(*unix.SockaddrLinklayer); err == nil && ok && link.Pkttype != unix.PACKET_OUTGOING {
				w.note(buf[:n])
			}
		}
	}()
	tb.Cleanup(func() {
		close(stop)
		<-stopped
		_ = unix.Close(fd)
	})
	return w
}

func (w *watcher) note(packet []byte) {
	var source []byte
	switch {
	case len(packet) >= 20 && packet[0]>>4 == 4:
		source = packet[12:16]
	case len(packet) >= 40 && packet[0]>>4 == 6:
		source = packet[8:24]
	}
	if a, ok := netip.AddrFromSlice(source); ok {
		w.mu.Lock()
		w.sources[a]++
		w.mu.Unlock()
	}
}

// from returns how many packets came from an address.
func (w *watcher) from(a netip.Addr) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sources[a]
}

// await waits until a packet from an address came.
func (w *watcher) await(tb testing.TB, a netip.Addr) {
	tb.Helper()
	for deadline := time.Now().Add(testrig.Timeout); w.from(a) == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			tb.Errorf("nothing came from %s", a)
			return
		}
	}
}

// never fails the test if a packet from an address came.
func (w *watcher) never(tb testing.TB, addrs ...netip.Addr) {
	tb.Helper()
	for _, a := range addrs {
		if n := w.from(a); n != 0 {
			tb.Errorf("the outside host saw %d packets from %s", n, a)
		}
	}
}
