// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/zipline-cni/zipline/internal/testrig"
	"github.com/zipline-cni/zipline/loader"
)

// kinds are the objects that an attachment has on the node, as lines of a
// snapshot. Each is there before DEL and must be gone after it.
var kinds = []struct {
	name    string
	pattern *regexp.Regexp
}{
	{"devices", regexp.MustCompile(`^link zl`)},
	{"addresses", regexp.MustCompile(`^address zl`)},
	{"routes", regexp.MustCompile(`^route (unreachable )?10\.62\.|^route .* dev zl`)},
	{"neighbours", regexp.MustCompile(`^neighbour 10\.62\.`)},
	{"programs", regexp.MustCompile(`^program `)},
	{"nft elements", regexp.MustCompile(`^nft table inet zipline.*\| element`)},
	{"firewall's rules", regexp.MustCompile(`^nft table ip filter.* 10\.62\.`)},
	{"leases", regexp.MustCompile(`^file /var/lib/cni/networks/[^/]+/10\.62\.`)},
	{"device sysctls", regexp.MustCompile(`^sysctl \S*/zl`)},
}

// reserved is host-local's place in the round robin, which is to stay.
var reserved = regexp.MustCompile(`/last_reserved_ip\.\d+ `)

// leftover is how many objects of a kind there are.
type leftover struct {
	kind  string
	count int
}

// leftovers counts what the node has of the containers.
func (d *demo) leftovers() []leftover {
	snapshot := d.world.Node.Snapshot(d.tb)
	var found []leftover
	for _, kind := range kinds {
		n := 0
		for _, line := range snapshot {
			if kind.pattern.MatchString(line) {
				n++
			}
		}
		found = append(found, leftover{kind.name, n})
	}
	flows := 0
	for _, p := range d.pods {
		flows += len(d.world.Node.Conntrack(d.tb, p.address.Addr().String()))
	}
	return append(found,
		leftover{"endpoint map", d.mapEntries()},
		leftover{"conntrack", flows},
		leftover{"any mention", d.mentions(snapshot)})
}

// mapEntries counts the containers' addresses in the endpoints map.
func (d *demo) mapEntries() int {
	entries := 0
	err := d.world.Node.Do(func() (err error) {
		node, err := loader.Find(0)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, node.Close()) }()
		for _, p := range d.pods {
			_, err := node.Lookup(p.address.Addr())
			if err == nil {
				entries++
			} else if !errors.Is(err, loader.ErrNotFound) {
				return err
			}
		}
		return nil
	})
	if err != nil {
		d.tb.Fatal(fmt.Errorf("read endpoint map of the node: %w", err))
	}
	return entries
}

// mentions counts the lines of any kind that name a container's device or address.
func (d *demo) mentions(snapshot testrig.Snapshot) int {
	n := 0
	for _, line := range snapshot {
		for _, p := range d.pods {
			if strings.Contains(line, p.device) || containsAddress(line, p.address.Addr().String()) && !reserved.MatchString(line) {
				n++
				break
			}
		}
	}
	return n
}

// containsAddress says whether text has the address and not a longer one.
func containsAddress(text, address string) bool {
	for {
		i := strings.Index(text, address)
		if i < 0 {
			return false
		}
		text = text[i+len(address):]
		if text == "" || text[0] < '0' || text[0] > '9' {
			return true
		}
	}
}

func (d *demo) showLeftovers(before, after []leftover) {
	var times []string
	for _, p := range d.pods {
		times = append(times, fmt.Sprintf("%s %s", p.ID, milliseconds(p.del["zipline"])))
	}
	d.screen.title("LEFT ON THE NODE (before > after DEL, which took " + strings.Join(times, ", ") + ")")
	var cells []string
	for i, b := range before {
		// What was not there before proves nothing by being away.
		mark := d.screen.check(b.count > 0 && after[i].count == 0,
			"%s: %d before DEL, %d after", b.kind, b.count, after[i].count)
		cells = append(cells, fmt.Sprintf("%s %s %d > %d", mark, b.kind, b.count, after[i].count))
	}
	const columns = 4
	var rows [][]string
	for len(cells) > 0 {
		n := min(columns, len(cells))
		rows = append(rows, cells[:n])
		cells = cells[n:]
	}
	d.screen.table(rows)
}
