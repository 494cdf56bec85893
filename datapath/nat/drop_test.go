// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/testrig"
)

// A flow whose conntrack entry is lost in midstream is invalid, and nat rules do
// not see it: without a rule it would leave with the container's address.
func TestInvalidPacketsDoNotLeaveUntranslated(t *testing.T) {
	for _, c := range []struct {
		name        string
		exempt      []string
		unprotected bool // the rules of chain forward are flushed
		wantLeak    bool
		wantDropped bool
	}{
		{name: "dropped", wantDropped: true},
		{name: "to an exempt destination it passes", wantLeak: true,
			exempt: []string{testrig.OutsideIPv4.String() + "/32", testrig.OutsideIPv6.String() + "/128"}},
		{name: "without the rule it leaks", unprotected: true, wantLeak: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			c1 := w.attach("c1", 1, GroupChecked)
			w.add(c1, Options{}, c1.sources(Masquerade)...)
			w.Node.SetSysctl(t, "netfilter/nf_conntrack_tcp_loose", "0")
			w.Node.SetSysctl(t, "netfilter/nf_conntrack_tcp_be_liberal", "0")
			if c.unprotected {
				w.node("nft flush chain inet %s forward", TableName)
			}
			var conns []net.Conn
			for _, dst := range []netip.Addr{testrig.OutsideIPv4, testrig.OutsideIPv6} {
				server := w.Outside.ServeTCP(t, netip.AddrPortFrom(dst, 0))
				conn, err := c1.Dial("tcp", server.Addr, testrig.Socket{})
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = conn.Close() }()
				conns = append(conns, conn)
			}
			time.Sleep(longEnough) // for the server's first line
			w.seen.never(t, c1.addr4, c1.addr6)
			if c.exempt != nil {
				w.add(c1, Options{}, c1.sources(Masquerade, c.exempt...)...)
			}
			w.node("conntrack -F")
			w.node("conntrack -F -f ipv6")
			for _, conn := range conns {
				if _, err := conn.Write([]byte("midstream")); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(longEnough)
			for _, a := range []netip.Addr{c1.addr4, c1.addr6} {
				if leaked := w.seen.from(a) > 0; leaked != c.wantLeak {
					t.Errorf("the outside host saw %s: %v, want %v", a, leaked, c.wantLeak)
				}
			}
			if dropped := !c.unprotected && w.drops(untranslated) >= 2; dropped != c.wantDropped {
				t.Errorf("counted as dropped: %v, want %v", dropped, c.wantDropped)
			}
		})
	}
}

// Between endpoints an untranslated packet is harmless, and one of an endpoint
// that is not masqueraded is as it should be.
func TestInvalidPacketsOfOthersPass(t *testing.T) {
	w := newWorld(t)
	c1, far, plain := w.attach("c1", 1, GroupChecked), w.attach("far", 2, GroupUnchecked), w.attach("plain", 3, GroupChecked)
	w.add(c1, Options{}, c1.sources(Masquerade)...)
	w.Node.SetSysctl(t, "netfilter/nf_conntrack_tcp_loose", "0")
	inside := watch(t, &far.Namespace)
	sendRST(t, c1, netip.AddrPortFrom(far.addr4, 80))
	inside.await(t, c1.addr4)
	sendRST(t, plain, netip.AddrPortFrom(testrig.OutsideIPv4, 80))
	w.seen.await(t, plain.addr4)
	if n := w.drops(untranslated); n != 0 {
		t.Errorf("%d packets dropped", n)
	}
}

// sendRST sends a TCP segment that belongs to no flow, which is invalid.
func sendRST(t *testing.T, c *container, dst netip.AddrPort) {
	t.Helper()
	segment := make([]byte, 20)
	binary.BigEndian.PutUint16(segment, 40000)
	binary.BigEndian.PutUint16(segment[2:], dst.Port())
	segment[12], segment[13] = 5<<4, 0x04
	src, to := c.addr4.As4(), dst.Addr().As4()
	pseudo := append(append(append([]byte{}, src[:]...), to[:]...), 0, unix.IPPROTO_TCP, 0, 20)
	binary.BigEndian.PutUint16(segment[16:], checksum(append(pseudo, segment...)))
	err := c.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		return unix.Sendto(fd, segment, 0, &unix.SockaddrInet4{Addr: to})
	})
	if err != nil {
		t.Fatal(err)
	}
}

func checksum(data []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(data); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(data[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

func TestForgedSources(t *testing.T) {
	for _, group := range []uint32{GroupChecked, GroupUnchecked} {
		t.Run(fmt.Sprint("link group ", group), func(t *testing.T) {
			w := newWorld(t)
			c1 := w.attach("c1", 1, group)
			w.add(c1, Options{}, c1.sources(Masquerade)...)
			honest := func() {
				echo(t, &c1.Namespace, w.Outside, testrig.OutsideIPv4)
				echo(t, &c1.Namespace, w.Outside, testrig.OutsideIPv6)
			}
			honest()
			if n := w.drops(forgedSource); n != 0 {
				t.Errorf("%d honest packets dropped", n)
			}
			// Of the own subnet and nobody's, from far away, and the node's own.
			forged := []netip.Addr{addr("10.1.0.77"), addr("203.0.113.9"), testrig.NodeIPv4,
				addr("fd00:1::77"), addr("2001:db8:9::9"), testrig.NodeIPv6}
			for _, a := range forged {
				c1.addAddress(t, a)
				dst := testrig.OutsideIPv4
				if a.Is6() {
					dst = testrig.OutsideIPv6
				}
				socket := testrig.Socket{Source: netip.AddrPortFrom(a, 0), Timeout: testrig.Patience}
				_, _ = c1.EchoUDP(netip.AddrPortFrom(dst, 9), []byte("x"), socket)
			}
			switch n := w.drops(forgedSource); group {
			case GroupChecked:
				if n < len(forged) {
					t.Errorf("%d packets counted as forged, want %d", n, len(forged))
				}
				w.seen.never(t, forged[0], forged[1], forged[3], forged[4])
			case GroupUnchecked: // the kernel itself drops its own addresses
				if n != 0 {
					t.Errorf("%d packets dropped of an endpoint without source check", n)
				}
				for _, i := range []int{0, 1, 3, 4} {
					w.seen.await(t, forged[i])
				}
			}
			honest()
		})
	}
}

// A container must not speak in its neighbour's name.
func TestNeighboursAddressIsDropped(t *testing.T) {
	w := newWorld(t)
	c1, c2 := w.attach("c1", 1, GroupChecked), w.attach("c2", 1, GroupChecked)
	w.add(c1, Options{}, c1.sources(Masquerade)...)
	w.add(c2, Options{}, c2.sources(Masquerade)...)
	for _, pair := range [][2]netip.Addr{{c2.addr4, testrig.OutsideIPv4}, {c2.addr6, testrig.OutsideIPv6}} {
		c1.addAddress(t, pair[0])
		socket := testrig.Socket{Source: netip.AddrPortFrom(pair[0], 0), Timeout: testrig.Patience}
		if _, err := c1.EchoUDP(netip.AddrPortFrom(pair[1], 9), []byte("x"), socket); err == nil {
			t.Errorf("answer to a packet from %s", pair[0])
		}
	}
	if n := w.drops(forgedSource); n < 2 { // a packet may be sent again
		t.Errorf("%d packets counted as forged, want one of each family", n)
	}
	w.seen.never(t, c2.addr4, c2.addr6, testrig.NodeIPv4)
}

// What has no address yet, or only a link-local one, must reach the node.
func TestAddresslessPacketsPassTheSourceCheck(t *testing.T) {
	w := newWorld(t)
	c1 := w.attach("c1", 1, GroupChecked)
	w.add(c1, Options{}, c1.sources(Masquerade)...)
	const seconds = 3
	// Duplicate address detection and MLD for a new address, by the kernel.
	c1.MustRun(t, "ip", "addr", "add", "fd00:1::1234/64", "dev", "eth0")
	for deadline := time.Now().Add(seconds * time.Second); ; time.Sleep(50 * time.Millisecond) {
		out := c1.MustRun(t, "ip", "-6", "addr", "show", "dev", "eth0")
		if !strings.Contains(out, "tentative") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("address is still tentative:\n%s", out)
		}
	}
	// DHCP discovery.
	dhcp := w.Node.ServeUDP(t, netip.MustParseAddrPort("0.0.0.0:67"))
	c1.MustRun(t, "ip", "-4", "addr", "flush", "dev", "eth0")
	sendDiscover(t, c1)
	for deadline := time.Now().Add(testrig.Timeout); len(dhcp.Peers()) == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Error("DHCP discovery did not reach the node")
			break
		}
	}
	// Link-local, also where the host end has no such address of its own.
	hostEnd := linkLocal(w.node("ip -6 addr show dev %s scope link", c1.device))
	if _, err := c1.Run("ping", "-n", "-c1", "-W3", hostEnd+"%eth0"); err != nil {
		t.Error(err)
	}
	w.node("ip -6 addr del %s/64 dev %s", hostEnd, c1.device)
	_, _ = c1.Run("ping", "-n", "-c1", "-W1", "ff02::1%eth0")
	if n := w.drops(forgedSource); n != 0 {
		t.Errorf("%d honest packets dropped", n)
	}
}

func linkLocal(text string) string {
	i := strings.Index(text, "fe80:")
	if i < 0 {
		return ""
	}
	return text[i : i+strings.IndexByte(text[i:], '/')]
}

// sendDiscover sends a UDP datagram from 0.0.0.0:68 to 255.255.255.255:67 past
// the container's own routing.
func sendDiscover(t *testing.T, c *container) {
	t.Helper()
	ip := make([]byte, 29)
	ip[0], ip[3], ip[8], ip[9] = 0x45, byte(len(ip)), 64, unix.IPPROTO_UDP
	copy(ip[16:], []byte{255, 255, 255, 255})
	binary.BigEndian.PutUint16(ip[10:], checksum(ip[:20]))
	ip[21], ip[23], ip[25] = 68, 67, 9
	err := c.Do(func() error {
		const etherTypeIPv4 = 0x0008 // htons(ETH_P_IP)
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		device, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		return unix.Sendto(fd, ip, 0, &unix.SockaddrLinklayer{
			Protocol: etherTypeIPv4, Ifindex: device.Index, Halen: 6,
			Addr: [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		})
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestMACSpoofCheck(t *testing.T) {
	w := newWorld(t)
	c1, c2 := w.attach("c1", 1, GroupChecked), w.attach("c2", 1, GroupUnchecked)
	for _, c := range []*container{c1, c2} {
		var own net.HardwareAddr
		if err := c.Do(func() error {
			device, err := net.InterfaceByName("eth0")
			if err == nil {
				own = device.HardwareAddr
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		w.add(c, Options{MAC: own}, c.sources(Masquerade)...)
		for _, dst := range []netip.Addr{testrig.OutsideIPv4, testrig.OutsideIPv6} {
			if err := c.Ping(dst); err != nil {
				t.Errorf("with the right MAC: %v", err)
			}
		}
		before := w.drops(forgedMAC)
		c.MustRun(t, "ip", "link", "set", "eth0", "address", "02:bb:bb:bb:bb:bb")
		for _, dst := range []netip.Addr{testrig.OutsideIPv4, testrig.OutsideIPv6} {
			if _, err := c.PingWith(dst, testrig.PingOptions{Negative: true}); err == nil {
				t.Errorf("answer from %s with another MAC", dst)
			}
		}
		if n := w.drops(forgedMAC); n < before+2 {
			t.Errorf("%d packets counted with another MAC, want at least 2", n-before)
		}
		w.do(func(r *Ruleset) error { return r.Add(c.owner(), c.sources(Masquerade), Options{}) })
		if err := c.Ping(testrig.OutsideIPv4); err != nil {
			t.Errorf("without the check: %v", err)
		}
	}
}
