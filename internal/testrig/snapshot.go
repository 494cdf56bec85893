// SPDX-License-Identifier: Apache-2.0

package testrig

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
)

// Snapshot is the state of a node as lines of text, each beginning with the kind
// of object it describes. Two snapshots are equal if the node is.
type Snapshot []string

// Snapshot reads everything that a plugin may change in the node: devices,
// addresses, routes, rules, neighbours made by hand, nft rulesets (iptables' among
// them), sysctls, attached programs, entries of endpoints and uplinks in pinned
// maps, and files. What the kernel learns or ages by itself is left out, and so are
// container paths.
func (n *Node) Snapshot(tb testing.TB) Snapshot {
	tb.Helper()
	n.awaitAddresses(tb)
	var s Snapshot
	s.add("link", n.lines(tb, stripLink, "ip", "-o", "-d", "link"))
	s.add("address", n.lines(tb, stripIndex, "ip", "-o", "addr"))
	for _, family := range []string{"-4", "-6"} {
		s.add("route", n.lines(tb, stripSpace, "ip", family, "route", "show", "table", "all"))
		s.add("rule", n.lines(tb, stripSpace, "ip", family, "rule"))
		s.add("proxy", n.lines(tb, stripSpace, "ip", family, "neigh", "show", "proxy"))
	}
	s.add("neighbour", n.lines(tb, stripNeighbour, "ip", "neigh", "show", "nud", "all"))
	s.add("nft", nftLines(n.MustRun(tb, "nft", "-s", "list", "ruleset")))
	err := n.Do(func() error {
		return errors.Join(s.addSysctls(), s.addFiles("/run"), s.addFiles("/var/lib/cni"), s.addFiles("/sys/fs/bpf"), s.addEntries())
	})
	if err != nil {
		tb.Fatalf("snapshot of node: %v", err)
	}
	s.add("clsact", n.clsactDevices(tb))
	s.add("program", n.programs(tb))
	slices.Sort(s)
	return slices.Compact(s)
}

// awaitAddresses waits until the kernel has entered the local routes of all IPv6
// addresses of devices that are up, which a work queue does some time after the
// address was added.
func (n *Node) awaitAddresses(tb testing.TB) {
	tb.Helper()
	for deadline := time.Now().Add(Timeout); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		local := n.MustRun(tb, "ip", "-6", "route", "show", "table", "local")
		missing := false
		for _, match := range address6.FindAllStringSubmatch(n.MustRun(tb, "ip", "-6", "-o", "addr", "show", "up"), -1) {
			missing = missing || !strings.Contains(local, "local "+match[1]+" ")
		}
		if !missing {
			return
		}
	}
	// What is still missing then is part of the snapshot.
}

// Diff returns what differs: "- " and a line that only s has, "+ " and a line
// that only later has. A line that one of the patterns in allowed matches is
// left out of both.
func (s Snapshot) Diff(later Snapshot, allowed ...*regexp.Regexp) []string {
	count := map[string]int{}
	for _, line := range s {
		count[line]--
	}
	for _, line := range later {
		count[line]++
	}
	var diff []string
	for line, n := range count {
		if n == 0 || slices.ContainsFunc(allowed, func(r *regexp.Regexp) bool { return r.MatchString(line) }) {
			continue
		}
		sign := "+ "
		if n < 0 {
			sign = "- "
		}
		diff = append(diff, sign+line)
	}
	slices.SortFunc(diff, func(a, b string) int { return strings.Compare(a[2:], b[2:]) })
	return diff
}

// Conntrack returns the node's connection tracking entries that mention addr,
// as the conntrack program prints them.
func (n *Node) Conntrack(tb testing.TB, addr string) []string {
	tb.Helper()
	var found []string
	for _, family := range []string{"ipv4", "ipv6"} {
		for line := range strings.Lines(n.MustRun(tb, "conntrack", "-L", "-f", family)) {
			if slices.ContainsFunc(strings.Fields(line), func(f string) bool { return strings.HasSuffix(f, "="+addr) }) {
				found = append(found, strings.TrimSpace(line))
			}
		}
	}
	return found
}

func (s *Snapshot) add(kind string, lines []string) {
	for _, line := range lines {
		*s = append(*s, kind+" "+line)
	}
}

var (
	index    = regexp.MustCompile(`^\d+: `)
	peer     = regexp.MustCompile(`@\S+?([: ])|link-netns(id)? \S+|qdisc \S+|qlen \d+|numtxqueues \d+|numrxqueues \d+`)
	address6 = regexp.MustCompile(`inet6 ([0-9a-f:]+)/`)
	spaces   = regexp.MustCompile(`\s+`)
	states   = regexp.MustCompile(` (REACHABLE|STALE|DELAY|PROBE|router)\b`)
	timers   = regexp.MustCompile(` (expires|used) \S+|proto kernel_|valid_lft \S+ preferred_lft \S+`)
	unquiet  = regexp.MustCompile(`nf_conntrack_count|nf_flowtable|stable_secret|/neigh/`)
)

func stripSpace(line string) string {
	return strings.TrimSpace(spaces.ReplaceAllString(timers.ReplaceAllString(line, ""), " "))
}

func stripIndex(line string) string {
	return stripSpace(strings.ReplaceAll(index.ReplaceAllString(line, ""), `\`, " "))
}

func stripLink(line string) string {
	return stripIndex(peer.ReplaceAllString(line, "$1"))
}

// stripNeighbour drops neighbours that the kernel learned, and the states that
// it gives to those that somebody entered.
func stripNeighbour(line string) string {
	if !strings.Contains(line, "PERMANENT") && !strings.Contains(line, "extern_learn") || strings.Contains(line, "NOARP") {
		return ""
	}
	return stripSpace(states.ReplaceAllString(line, ""))
}

// lines runs a program and returns its lines, each passed through strip.
func (n *Node) lines(tb testing.TB, strip func(string) string, name string, args ...string) []string {
	tb.Helper()
	var out []string
	for line := range strings.Lines(n.MustRun(tb, name, args...)) {
		if line = strip(line); line != "" {
			out = append(out, line)
		}
	}
	return out
}

// nftLines puts before each line of a ruleset the blocks that it lies in, so
// that it still means something when the lines are sorted.
func nftLines(ruleset string) []string {
	var out, blocks []string
	for line := range strings.Lines(ruleset) {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case line == "}":
			blocks = blocks[:len(blocks)-1]
		case strings.HasSuffix(line, "{") && !strings.HasPrefix(line, "elements"):
			blocks = append(blocks, strings.TrimSuffix(line, " {"))
			out = append(out, strings.Join(blocks, " | "))
		default:
			prefix := strings.Join(blocks, " | ")
			for _, part := range nftElements(line) {
				out = append(out, prefix+" | "+part)
			}
		}
	}
	return out
}

var elementsEdge = regexp.MustCompile(`^elements = \{ ?| ?\}$`)

// nftElements splits a line with elements of a set into one text per element.
func nftElements(line string) []string {
	if !strings.HasPrefix(line, "elements = {") && !strings.HasSuffix(line, ",") && !strings.HasSuffix(line, " }") {
		return []string{line}
	}
	var out []string
	for _, element := range strings.Split(elementsEdge.ReplaceAllString(line, ""), ", ") {
		if element = strings.Trim(element, ", "); element != "" {
			out = append(out, "element "+element)
		}
	}
	return out
}

// addSysctls reads the settings of addresses, devices and connection tracking.
func (s *Snapshot) addSysctls() error {
	const root = "/proc/sys/net"
	for _, dir := range []string{"ipv4", "ipv6", "netfilter", "bridge"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, entry fs.DirEntry, err error) error {
			if errors.Is(err, os.ErrNotExist) {
				return nil
			}
			if err != nil || entry.IsDir() || unquiet.MatchString(path) {
				return err
			}
			value, err := os.ReadFile(path)
			if err != nil {
				return nil //nolint:nilerr // write-only keys exist, and devices that go away
			}
			*s = append(*s, fmt.Sprintf("sysctl %s = %s", path[len(root)+1:], stripSpace(string(value))))
			return nil
		})
		if err != nil {
			return fmt.Errorf("read sysctls: %w", err)
		}
	}
	return nil
}

// addFiles lists a directory. Small files' contents belong to it.
func (s *Snapshot) addFiles(root string) error {
	return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if path == NetnsDir {
			return fs.SkipDir
		}
		if path == root || strings.HasSuffix(path, ".debug") {
			return nil
		}
		text := "file " + path
		if entry.Type().IsRegular() && !strings.HasPrefix(path, "/sys/") {
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text += fmt.Sprintf(" %q", content[:min(len(content), 200)])
		}
		*s = append(*s, text)
		return nil
	})
}

// addEntries dumps the pinned maps that say which endpoints and uplinks there are.
func (s *Snapshot) addEntries() error {
	for _, name := range []string{"endpoints", "devices", "uplinks"} {
		pins, err := filepath.Glob("/sys/fs/bpf/zipline/*/*/" + name)
		if err != nil {
			return err
		}
		for _, pin := range pins {
			if err := s.addMap(name, pin); err != nil {
				return fmt.Errorf("dump %s: %w", pin, err)
			}
		}
	}
	return nil
}

// pathSlots is where in a value the number of a counter is that a device is given
// when it is published, and another one when it is published again.
var pathSlots = map[string]int{"endpoints": 38, "devices": 50}

func (s *Snapshot) addMap(name, pin string) error {
	m, err := ebpf.LoadPinnedMap(pin, &ebpf.LoadPinOptions{ReadOnly: true})
	if err != nil {
		return err
	}
	defer func() { _ = m.Close() }() // only read from
	var key, value []byte
	entries := m.Iterate()
	for entries.Next(&key, &value) {
		if slot, ok := pathSlots[name]; ok && len(value) > slot+1 {
			clear(value[slot : slot+2])
		}
		*s = append(*s, fmt.Sprintf("entry %s %x = %x", name, key, value))
	}
	return entries.Err()
}
