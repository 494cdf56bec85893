// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"encoding/binary"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// entry is a connection tracking entry of a stream.
type entry struct {
	remaining int    // seconds
	state     string // TCP's; empty for UDP
	text      string
}

var entryLine = regexp.MustCompile(`^(?:tcp|udp)\s+\d+\s+(\d+)\s+(?:([A-Z_0-9]+)\s+)?src=\S+ dst=\S+ sport=\d+ dport=(\d+)`)

// entries returns the node's TCP and UDP entries by the port that their flow was
// opened to.
func (top *topology) entries(t *testing.T) map[uint16][]entry {
	t.Helper()
	byPort := map[uint16][]entry{}
	for _, family := range []string{"ipv4", "ipv6"} {
		for _, line := range strings.Split(top.Node.MustRun(t, "conntrack", "-L", "-f", family), "\n") {
			m := entryLine.FindStringSubmatch(line)
			if m == nil {
				continue
			}
			remaining, err := strconv.Atoi(m[1])
			port, portErr := strconv.ParseUint(m[3], 10, 16)
			if err != nil || portErr != nil {
				t.Fatalf("parse conntrack entry %q: %v, %v", line, err, portErr)
			}
			byPort[uint16(port)] = append(byPort[uint16(port)], entry{remaining, m[2], line})
		}
	}
	return byPort
}

// destroyedFlows records which flows conntrack forgets, by the port that they
// were opened to, from its start until its test ends.
type destroyedFlows struct {
	mu    sync.Mutex
	ports map[uint16]int
	err   error
}

// Attributes of ctnetlink messages.
const (
	ctaTupleOrig    = 1
	ctaTupleProto   = 2
	ctaProtoDstPort = 3
)

// watchDestroyed has to be called before the flows begin: conntrack reports the
// end of those only that began while somebody listened (nf_conntrack_events 2).
func (top *topology) watchDestroyed(t *testing.T) *destroyedFlows {
	t.Helper()
	d := &destroyedFlows{ports: map[uint16]int{}}
	var conn *netlink.Conn
	err := top.Node.Do(func() (err error) {
		if conn, err = netlink.Dial(unix.NETLINK_NETFILTER, nil); err != nil {
			return fmt.Errorf("open netfilter socket: %w", err)
		}
		return conn.JoinGroup(unix.NFNLGRP_CONNTRACK_DESTROY)
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { _ = conn.Close(); <-done })
	go func() {
		defer close(done)
		for {
			messages, err := conn.Receive()
			if err != nil {
				d.fail(err) // also that the socket is closed, when nobody counts any more
				return
			}
			for _, m := range messages {
				d.note(m.Data)
			}
		}
	}()
	return d
}

func (d *destroyedFlows) note(data []byte) {
	const familyHeader = 4 // struct nfgenmsg
	ad, err := netlink.NewAttributeDecoder(data[familyHeader:])
	if err == nil {
		ad.ByteOrder = binary.BigEndian
		for ad.Next() {
			if ad.Type() == ctaTupleOrig {
				ad.Nested(d.noteTuple)
			}
		}
		err = ad.Err()
	}
	if err != nil {
		d.fail(err)
	}
}

// fail notes that not all is counted.
func (d *destroyedFlows) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err == nil {
		d.err = fmt.Errorf("watch conntrack events: %w", err)
	}
}

func (d *destroyedFlows) noteTuple(tuple *netlink.AttributeDecoder) error {
	for tuple.Next() {
		if tuple.Type() != ctaTupleProto {
			continue
		}
		tuple.Nested(func(protocol *netlink.AttributeDecoder) error {
			protocol.ByteOrder = binary.BigEndian
			for protocol.Next() {
				if protocol.Type() == ctaProtoDstPort {
					d.mu.Lock()
					d.ports[protocol.Uint16()]++
					d.mu.Unlock()
				}
			}
			return nil
		})
	}
	return nil
}

// count returns how many flows to a port were forgotten.
func (d *destroyedFlows) count(t *testing.T, port uint16) int {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil {
		t.Fatal(d.err)
	}
	return d.ports[port]
}
