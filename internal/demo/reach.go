// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"

	"github.com/zipline-cni/zipline/internal/testrig"
)

// host is one end of the matrix. The outside only answers: it has no route to
// the containers.
type host struct {
	name    string
	ns      *testrig.Namespace
	address netip.Addr
}

func (d *demo) hosts() (from, to []host) {
	for _, p := range d.pods {
		from = append(from, host{p.ID, &p.Namespace, p.address.Addr()})
	}
	from = append(from, host{"node", &d.world.Node.Namespace, d.pods[0].gateway})
	return from, append(from[:len(from):len(from)], host{"outside", d.world.Outside, testrig.InternetIPv4})
}

// serve starts a TCP server on every host.
func (d *demo) serve() {
	_, hosts := d.hosts()
	for _, h := range hosts {
		h.ns.ServeTCP(d.tb, netip.AddrPortFrom(h.address, tcpPort))
	}
}

// reach is the outcome of one cell of the matrix.
type reach struct{ icmp, tcp error }

// String returns the words for what worked.
func (r reach) String() string {
	words := []string{"icmp", "tcp"}
	for i, err := range []error{r.icmp, r.tcp} {
		if err != nil {
			words[i] = "-"
		}
	}
	return strings.Join(words, " ")
}

// showReach tries every pair of hosts, all at the same time: where nothing
// answers each waits long.
func (d *demo) showReach() {
	from, to := d.hosts()
	cells := make([][]reach, len(from))
	var tries sync.WaitGroup
	for i, source := range from {
		cells[i] = make([]reach, len(to))
		for j, target := range to {
			if source.ns == target.ns {
				continue
			}
			tries.Go(func() {
				cells[i][j].icmp = source.ns.Ping(target.address)
				_, cells[i][j].tcp = source.ns.EchoTCP(
					netip.AddrPortFrom(target.address, tcpPort), []byte("hello"), testrig.Socket{})
			})
		}
	}
	tries.Wait()

	d.screen.title("WHO REACHES WHOM")
	head := []string{"from"}
	for _, target := range to {
		head = append(head, "to "+target.name)
	}
	rows := [][]string{append(head, "")}
	for i, source := range from {
		rows = append(rows, d.reachRow(source, to, cells[i]))
	}
	d.screen.table(rows)
}

func (d *demo) reachRow(source host, to []host, cells []reach) []string {
	row := []string{source.name}
	ok := true
	for j, target := range to {
		if source.ns == target.ns {
			row = append(row, ".")
			continue
		}
		row = append(row, cells[j].String())
		for _, err := range []error{cells[j].icmp, cells[j].tcp} {
			if err != nil {
				ok = false
				d.screen.check(false, "%s reaches %s: %w", source.name, target.name, err)
			}
		}
	}
	if ok {
		return append(row, "✓")
	}
	return append(row, "✗")
}

// showSource asks the outside host which address it sees.
func (d *demo) showSource() {
	d.screen.title("SOURCE ADDRESS THAT OUTSIDE SAW")
	for _, p := range d.pods {
		peer, err := p.EchoTCP(netip.AddrPortFrom(testrig.InternetIPv4, tcpPort), []byte("who am I"), testrig.Socket{})
		seen := peer.Addr().String()
		if err != nil {
			seen = "nothing"
		}
		mark := d.screen.check(err == nil && peer.Addr() == testrig.NodeIPv4,
			"outside sees %s of container %s, not the node's %s: %v", seen, p.ID, testrig.NodeIPv4, err)
		d.screen.line("%s", fmt.Sprintf("  %s (%s) is %s to %s, the node's own address  %s",
			p.ID, p.address.Addr(), seen, testrig.InternetIPv4, mark))
	}
}
