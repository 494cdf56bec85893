// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/loader/trace"
)

const traceTime = "2006-01-02T15:04:05.000000000Z07:00"

type tupleJSON struct {
	Source          string `json:"source" doc:"address that it came from; of ARP, the sender's"`
	SourcePort      uint16 `json:"sourcePort" doc:"0 where there is none"`
	Destination     string `json:"destination" doc:"address that it went to; of ARP, the target's"`
	DestinationPort uint16 `json:"destinationPort" doc:"0 where there is none"`
}

type traceEventJSON struct {
	Time        string `json:"time" doc:"when, RFC 3339, UTC, to the nanosecond"`
	Endpoint    string `json:"endpoint" doc:"host device of the endpoint that it is about: the sender, or the receiver of what comes from elsewhere; empty where neither is one"`
	Network     string `json:"network" doc:"network of the endpoint"`
	ContainerID string `json:"containerId" doc:"its container"`
	IfName      string `json:"ifName" doc:"the container's device"`
	Peer        string `json:"peer" doc:"host device of the other end, where that is an endpoint too"`
	Direction   string `json:"direction" doc:"out: from the endpoint, or from nobody's; in: to it"`
	Hook        string `json:"hook" doc:"program: from_endpoint, from_uplink or to_device"`
	Device      string `json:"device" doc:"device that the program is attached to"`
	Protocol    string `json:"protocol" doc:"of the packet, as --protocol has it, or ip-N, or ethertype-0xN"`
	tupleJSON
	TCPFlags      string     `json:"tcpFlags" doc:"as tcpdump writes them; empty of other protocols"`
	Verdict       string     `json:"verdict" doc:"redirect, drop or next"`
	Reason        string     `json:"reason" doc:"in one word, as --reason has it"`
	Description   string     `json:"description" doc:"the reason in words"`
	Translation   *tupleJSON `json:"translation" doc:"addresses and ports that it went on with; null where they are the same"`
	Length        int        `json:"length" doc:"bytes with the Ethernet header, before segmentation"`
	ConntrackMark *uint32    `json:"conntrackMark" doc:"mark of its flow; null where the flow was not looked up"`
}

func tupleOf(t trace.Tuple) tupleJSON {
	return tupleJSON{addressText(t.Src.Addr()), t.Src.Port(), addressText(t.Dst.Addr()), t.Dst.Port()}
}

func addressText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func (r *traceRun) eventJSON(e *trace.Event) traceEventJSON {
	endpoint := r.names.byIndex(e.Endpoint)
	j := traceEventJSON{
		Time: e.Time.Format(traceTime), Endpoint: endpoint.HostDevice, Network: endpoint.Network,
		ContainerID: endpoint.ContainerID, IfName: endpoint.IfName, Peer: r.names.byIndex(e.Peer).HostDevice,
		Direction: direction(e), Hook: e.Hook.String(), Device: r.names.device(e.Device),
		Protocol: protocolText(e.Came), tupleJSON: tupleOf(e.Came), TCPFlags: flagsText(e.Came),
		Verdict: e.Reason.Verdict().String(), Reason: e.Reason.Token(), Description: e.Reason.String(), Length: e.Length,
	}
	if e.Translated() {
		went := tupleOf(e.Went)
		j.Translation = &went
	}
	if e.Known {
		j.ConntrackMark = &e.Mark
	}
	return j
}

// eventLine is the event in one line for people.
func (r *traceRun) eventLine(e *trace.Event) string {
	g := &grid{color: r.terminal}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %-3s %s %s %s", e.Time.Format("15:04:05.000000"), direction(e), r.names.label(e.Endpoint),
		protocolText(e.Came), tupleText(e.Came))
	if flags := flagsText(e.Came); flags != "" {
		fmt.Fprintf(&b, " [%s]", flags)
	}
	if e.Translated() {
		fmt.Fprintf(&b, " as %s", tupleText(e.Went))
	}
	fmt.Fprintf(&b, " len %d %s %s (%s)", e.Length, paintVerdict(g, e.Reason.Verdict().String()), e.Reason.Token(), e.Hook)
	if e.Known && e.Mark != 0 {
		fmt.Fprintf(&b, " mark %#x", e.Mark)
	}
	return b.String()
}

func paintVerdict(g *grid, verdict string) string {
	switch verdict {
	case "drop":
		return g.bad(verdict)
	case "redirect":
		return g.good(verdict)
	}
	return verdict
}

func direction(e *trace.Event) string {
	if e.Inbound() {
		return "in"
	}
	return "out"
}

func tupleText(t trace.Tuple) string {
	if !t.Src.IsValid() {
		return "?"
	}
	if t.Src.Port() == 0 && t.Dst.Port() == 0 {
		return t.Src.Addr().String() + " > " + t.Dst.Addr().String()
	}
	return t.Src.String() + " > " + t.Dst.String()
}

func protocolText(t trace.Tuple) string {
	switch t.EtherType {
	case unix.ETH_P_IP, unix.ETH_P_IPV6:
		return cmp.Or(protocolName(t.Protocol), fmt.Sprintf("ip-%d", t.Protocol))
	case unix.ETH_P_ARP:
		return "arp"
	}
	return fmt.Sprintf("ethertype-%#04x", t.EtherType)
}

// flagsText names the TCP flags as tcpdump does.
func flagsText(t trace.Tuple) string {
	if t.EtherType != unix.ETH_P_IP && t.EtherType != unix.ETH_P_IPV6 || t.Protocol != unix.IPPROTO_TCP {
		return ""
	}
	var b strings.Builder
	for i, letter := range "FSRP.UEW" {
		if t.TCPFlags&(1<<i) != 0 {
			b.WriteRune(letter)
		}
	}
	return b.String()
}
