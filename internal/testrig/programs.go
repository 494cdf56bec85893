// SPDX-License-Identifier: Apache-2.0

package testrig

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// sides are the places of a device for programs, as tc calls them.
var sides = []struct {
	name string
	tcx  ebpf.AttachType
}{{"ingress", ebpf.AttachTCXIngress}, {"egress", ebpf.AttachTCXEgress}}

// Programs lists what is attached to a device of the node, ingress first: "ingress"
// or "egress" and the name of each program of TCX, in the order in which they run,
// or what tc says about each filter of clsact.
func (n *Node) Programs(tb testing.TB, device string) []string {
	tb.Helper()
	var out []string
	for _, line := range n.programs(tb) {
		if attached, ok := strings.CutPrefix(line, device+" "); ok {
			out = append(out, attached)
		}
	}
	return out
}

// programs lists what is attached to each device of the node, after its name.
func (n *Node) programs(tb testing.TB) []string {
	tb.Helper()
	var out []string
	err := n.Do(func() error {
		devices, err := net.Interfaces()
		if err != nil {
			return err
		}
		for _, device := range devices {
			for _, side := range sides {
				names, err := attachedTCX(device.Index, side.tcx)
				if err != nil {
					return fmt.Errorf("query tcx of %s: %w", device.Name, err)
				}
				for _, name := range names {
					out = append(out, device.Name+" "+side.name+" "+name)
				}
			}
		}
		return nil
	})
	if err != nil {
		tb.Fatalf("list attached programs: %v", err)
	}
	for _, device := range n.clsactDevices(tb) {
		for _, side := range sides {
			for _, filter := range n.lines(tb, stripFilter, "tc", "filter", "show", "dev", device, side.name) {
				out = append(out, device+" "+side.name+" "+filter)
			}
		}
	}
	return out
}

// clsactDevices returns the devices that have a place for filters.
func (n *Node) clsactDevices(tb testing.TB) []string {
	tb.Helper()
	var devices []string
	for line := range strings.Lines(n.MustRun(tb, "tc", "qdisc", "show")) {
		// qdisc clsact ffff: dev uplink0 parent ffff:fff1
		if fields := strings.Fields(line); len(fields) > 4 && fields[1] == "clsact" {
			devices = append(devices, fields[4])
		}
	}
	return devices
}

// attachedTCX returns the names of the programs on a side of a device. A kernel
// without TCX has none, and a device that went away meanwhile neither.
func attachedTCX(index int, side ebpf.AttachType) ([]string, error) {
	result, err := link.QueryPrograms(link.QueryOptions{Target: index, Attach: side})
	if errors.Is(err, unix.EINVAL) || errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, unix.ENODEV) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, attached := range result.Programs {
		name, err := programName(attached.ID)
		if err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, nil
}

func programName(id ebpf.ProgramID) (string, error) {
	program, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return "", err
	}
	defer func() { _ = program.Close() }() // only read from
	info, err := program.Info()
	if err != nil {
		return "", err
	}
	return info.Name, nil
}

var filterNumbers = regexp.MustCompile(`:\[\d+\]| id \d+| tag \S+`)

// stripFilter drops what differs between two attachments of one program.
func stripFilter(line string) string { return stripSpace(filterNumbers.ReplaceAllString(line, "")) }
