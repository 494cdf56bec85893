// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/zipline-cni/zipline/bpf"
	"github.com/zipline-cni/zipline/datapath/nat"
	"github.com/zipline-cni/zipline/loader"
)

// Overview is a node at a glance.
type Overview struct {
	// Loaded says whether there are programs and maps of ours. Tier is what they
	// can do or, where nothing is loaded, what an ADD would load.
	Loaded bool
	Tier   loader.Tier
	// Missing says what the kernel lacks for a better tier, nil for nothing.
	Missing error
	// TCX is nil, or says why programs are attached by clsact.
	TCX error
	// BPFFS is the mount point, PinDir the directory of this node's pins; "" for
	// what this mount namespace does not show.
	BPFFS, PinDir string

	Endpoints []Inspected
	Networks  []NetworkSummary
	Uplinks   []UplinkStatus
	Maps      []loader.MapStatus
	// What the programs of host veths and uplinks decided since the maps were
	// made: to carry or answer, to drop, to leave to the stack. A packet that
	// crosses two counts twice.
	Redirected, Dropped, Left Traffic
	// Drops is what of Dropped each reason has, none of them zero.
	Drops map[bpf.Reason]Traffic
	// Table is nil, a *nat.CheckError, or why the ruleset could not be read.
	Table error
	// Leftovers is how many addresses are published of devices that are gone: of
	// containers that died and whose DEL is still to come, or never will. They harm
	// nobody; DEL and GC remove them.
	Leftovers int
	// Findings is what is not as it should be.
	Findings []Finding
}

// UplinkStatus is a device by which the node reaches others.
type UplinkStatus struct {
	Index int
	// Name is "" for a device that is gone.
	Name string
	MTU  int
	Up   bool
	// Wrong is nil, or says that the programs on it are not the node's.
	Wrong error
}

// pressureLimit is how full a map may be before somebody should know.
const pressureLimit = 0.9

// settleTime is longer than an endpoint is on its way in or out.
const settleTime = 300 * time.Millisecond

// Survey looks at everything that zipline has on the node of the calling thread.
// It changes nothing. Endpoints come and go while it looks, half made or half
// gone, so it takes for wrong only what it finds twice. Of an endpoint without
// programs only the evidence tells whether it should have some.
func Survey(e Evidence) (*Overview, error) {
	first, err := survey(e)
	if err != nil || len(first.Findings) == 0 {
		return first, err
	}
	time.Sleep(settleTime)
	o, err := survey(e)
	if err != nil {
		return nil, err
	}
	o.Findings = slices.DeleteFunc(o.Findings, func(f Finding) bool { return !slices.Contains(first.Findings, f) })
	return o, nil
}

func survey(e Evidence) (o *Overview, err error) {
	o = &Overview{BPFFS: loader.MountedBPFFS(), TCX: loader.HaveTCX()}
	list, err := Endpoints()
	if err != nil {
		return nil, err
	}
	node, err := FindNode(list)
	if err != nil {
		return nil, err
	}
	if node != nil {
		defer func() { err = errors.Join(err, node.Close()) }()
	}
	if o.Endpoints, err = Inspect(list, node, InspectOptions{}); err != nil {
		return nil, err
	}
	guards, err := GuardedSubnets()
	if err != nil {
		return nil, err
	}
	o.Networks = Networks(o.Endpoints, guards)
	if err := o.addTier(node); err != nil {
		return nil, err
	}
	o.Table = withRuleset((*nat.Ruleset).CheckTable)
	o.findInEndpoints()
	o.findUnpublished(e)
	o.findInNode()
	return o, o.findInMaps(node)
}

func (o *Overview) addTier(node *loader.Node) error {
	if node == nil {
		report := loader.Examine()
		o.Tier, o.Missing = report.Tier(), errors.Join(report.Err(), report.Conntrack)
		return nil
	}
	o.Loaded, o.Tier, o.PinDir = true, loader.TierConntrack, node.PinDir()
	if !node.TracksFlows() {
		o.Tier, o.Missing = loader.TierDirect, loader.HaveConntrack()
	}
	return errors.Join(o.addUplinks(node), o.addCounters(node))
}

func (o *Overview) addUplinks(node *loader.Node) error {
	indexes, err := node.Uplinks()
	if err != nil {
		return err
	}
	for _, index := range indexes {
		u := UplinkStatus{Index: index}
		link, err := netlink.LinkByIndex(index)
		switch {
		case isNotFound(err):
			u.Wrong = errors.New("the device is gone")
		case err != nil:
			return fmt.Errorf("read uplink %d: %w", index, err)
		default:
			attrs := link.Attrs()
			u.Name, u.MTU, u.Up, u.Wrong = attrs.Name, attrs.MTU, attrs.RawFlags&ifUp != 0, node.UplinkAttached(index)
		}
		o.Uplinks = append(o.Uplinks, u)
	}
	return nil
}

func (o *Overview) addCounters(node *loader.Node) (err error) {
	counters, err := node.Counters()
	if err != nil {
		return err
	}
	o.Drops = map[bpf.Reason]Traffic{}
	for _, c := range counters {
		if c.Hook == bpf.HookDevice {
			continue // it only watches what was decided before
		}
		sum := &o.Left
		switch c.Reason.Verdict() {
		case bpf.VerdictRedirect:
			sum = &o.Redirected
		case bpf.VerdictDrop:
			sum = &o.Dropped
			of := o.Drops[c.Reason]
			of.Add(Traffic{c.Packets, c.Bytes})
			o.Drops[c.Reason] = of
		}
		sum.Add(Traffic{c.Packets, c.Bytes})
	}
	o.Maps, err = node.Maps()
	return err
}

// HaveTable says whether there is a table of ours, whatever is in it.
func (o *Overview) HaveTable() bool {
	var wrong *nat.CheckError
	return o.Table == nil || errors.As(o.Table, &wrong) && !errors.Is(o.Table, nat.ErrTableMissing)
}

func (o *Overview) find(object, mend, format string, args ...any) {
	o.Findings = append(o.Findings, Finding{Object: object, Wrong: fmt.Sprintf(format, args...), Mend: mend})
}

func (o *Overview) findInEndpoints() {
	for i := range o.Endpoints {
		e := &o.Endpoints[i]
		object := "device " + e.HostDevice
		if !e.Up {
			o.find(object, "ip link set "+e.HostDevice+" up, and the container's end", "is down")
		}
		if e.NetnsID >= 0 && e.Inside == nil {
			o.find(object, "DEL or GC", "its other end cannot be read")
		}
		if e.Wrong != nil {
			o.find("program on "+e.HostDevice, "ziplinectl repair", "%v", e.Wrong)
		}
		name := "ipv4/conf/" + e.HostDevice + "/forwarding"
		if hasIPv4(e.Addresses) && sysctlIs(name, "0") {
			o.find("sysctl net/"+name, "sysctl -w net/"+name+"=1", "is 0, not 1: forwarding is switched off")
		}
	}
}

// findUnpublished looks for endpoints that the programs know nothing of, though
// their configuration asks for programs: after an unload, or an ADD that could not
// have them. Where the kernel cannot have them either, nothing is wrong.
func (o *Overview) findUnpublished(e Evidence) {
	if o.Tier == loader.TierKernel {
		return
	}
	var names []string
	for i := range o.Endpoints {
		if in := &o.Endpoints[i]; len(in.Entries) == 0 && e.wantsPrograms(&in.Attached) {
			names = append(names, in.HostDevice)
		}
	}
	const most = 3 // the finding is one line
	if n := len(names); n > most {
		names = append(names[:most:most], fmt.Sprintf("%d more", n-most))
	}
	if len(names) > 0 {
		o.find("programs", "ziplinectl repair", "do not know endpoints whose configuration asks for them, so the stack carries their packets: %s", strings.Join(names, ", "))
	}
}

func hasIPv4(addresses []netip.Addr) bool {
	return len(addresses) > 0 && addresses[0].Is4() // they are sorted
}

// findInNode looks at what the endpoints share.
func (o *Overview) findInNode() {
	var wrong *nat.CheckError
	switch {
	case o.Table == nil:
	case !errors.As(o.Table, &wrong):
		o.find("table inet "+nat.TableName, "see the reason", "cannot be read: %v", o.Table)
	case len(o.Endpoints) > 0 || o.HaveTable():
		for _, p := range wrong.Problems {
			o.find(p.Object, p.Mend, "%s", p.Wrong)
		}
	}
	for _, u := range o.Uplinks {
		if u.Wrong != nil {
			mend := "ziplinectl attach " + u.Name + " --uplink"
			if u.Name == "" {
				mend = "none needed: GC forgets one that is gone"
			}
			o.find(fmt.Sprintf("uplink %s", orIndex(u.Name, u.Index)), mend, "%v", u.Wrong)
		}
	}
	for i := range o.Endpoints {
		if o.Endpoints[i].Tier != loader.TierConntrack {
			continue
		}
		for _, name := range switchedOff() {
			o.find("sysctl net/"+name, "sysctl -w net/"+name+"=1", "is not 1: conntrack may call carried connections invalid")
		}
		break
	}
}

func orIndex(name string, index int) string {
	if name == "" {
		return fmt.Sprint(index)
	}
	return name
}

// findInMaps counts the entries of devices that are gone, and looks for full maps.
func (o *Overview) findInMaps(node *loader.Node) error {
	if node == nil {
		return nil
	}
	published, err := node.Published()
	if err != nil {
		return err
	}
	for _, entry := range published {
		if !deviceAlive(entry.IfIndex) {
			o.Leftovers++
		}
	}
	for _, m := range o.Maps {
		if p := m.Pressure(); m.Limits() && p >= pressureLimit {
			o.find("map "+m.Name, "fewer endpoints on this node", "is %.0f %% full", 100*p)
		}
	}
	return nil
}
