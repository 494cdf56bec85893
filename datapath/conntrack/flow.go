// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/nfnl"
)

// More attributes of include/uapi/linux/netfilter/nfnetlink_conntrack.h.
const (
	attrStatus          = 3  // CTA_STATUS
	attrProtoInfo       = 4  // CTA_PROTOINFO
	attrHelp            = 5  // CTA_HELP
	attrTimeout         = 7  // CTA_TIMEOUT
	attrMark            = 8  // CTA_MARK
	attrCountersOrig    = 9  // CTA_COUNTERS_ORIG
	attrCountersReply   = 10 // CTA_COUNTERS_REPLY
	attrTupleProto      = 2  // CTA_TUPLE_PROTO
	attrDestination4    = 2  // CTA_IP_V4_DST
	attrDestination6    = 4  // CTA_IP_V6_DST
	attrProtoNumber     = 1  // CTA_PROTO_NUM
	attrSourcePort      = 2  // CTA_PROTO_SRC_PORT
	attrDestinationPort = 3  // CTA_PROTO_DST_PORT
	attrInfoTCP         = 1  // CTA_PROTOINFO_TCP
	attrTCPState        = 1  // CTA_PROTOINFO_TCP_STATE
	attrHelpName        = 1  // CTA_HELP_NAME
	attrPackets         = 1  // CTA_COUNTERS_PACKETS
	attrBytes           = 2  // CTA_COUNTERS_BYTES
)

// Status is the bits of enum ip_conntrack_status.
type Status uint32

// The bits that flows of endpoints can have.
const (
	HasReply     Status = 1 << 1
	Assured      Status = 1 << 2
	Confirmed    Status = 1 << 3
	SequenceMove Status = 1 << 6
	Dying        Status = 1 << 9
	FixedTimeout Status = 1 << 10
	Helper       Status = 1 << 13
	Offload      Status = 1 << 14
)

var statusNames = []struct {
	bit  Status
	name string
}{
	{1 << 0, "expected"}, {HasReply, "seen-reply"}, {Assured, "assured"}, {Confirmed, "confirmed"},
	{1 << 4, "snat"}, {1 << 5, "dnat"}, {SequenceMove, "seq-adjust"},
	{Dying, "dying"}, {FixedTimeout, "fixed-timeout"}, {1 << 12, "untracked"},
	{Helper, "helper"}, {Offload, "offload"}, {1 << 15, "hw-offload"},
}

// Names returns the words for the bits, in the order of the bits. Those that say
// how far a translation has been set up (IPS_SRC_NAT_DONE) have none.
func (s Status) Names() []string {
	names := []string{}
	for _, n := range statusNames {
		if s&n.bit != 0 {
			names = append(names, n.name)
		}
	}
	return names
}

// Tuple is what the packets of one direction look like when they arrive. The
// ports are 0 where the protocol has none.
type Tuple struct{ Source, Destination netip.AddrPort }

// Count is what conntrack saw of a direction: not what was carried past it.
type Count struct{ Packets, Bytes uint64 }

// Flow is a connection tracking entry.
type Flow struct {
	ID       uint32
	Protocol uint8
	// Original is the direction that opened the flow, Reply that of the answers.
	// Translation makes of a packet of one the inverse of the other.
	Original, Reply Tuple
	// State is TCP's, as conntrack(8) prints it; empty for others.
	State  string
	Status Status
	Mark   uint32
	Zone   uint16
	// Timeout is what is left, in whole seconds: ctnetlink tells no more.
	Timeout time.Duration
	// Helper is the name of the helper, where there is one.
	Helper string
	// Accounted says that the counts are known (net.netfilter.nf_conntrack_acct).
	Accounted    bool
	SeenOriginal Count
	SeenReply    Count
}

// tcpStates are the words for enum tcp_conntrack.
var tcpStates = []string{
	"NONE", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT",
	"CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE", "SYN_SENT2",
}

// Flows calls f for every entry of the calling thread's network namespace, of
// all protocols and zones. The table of a busy node changes meanwhile: what was
// there all the time is told.
func Flows(f func(Flow)) (err error) {
	conn, err := nfnl.Open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	err = conn.Dump(newMessage(getEntry, netlink.Request, unix.AF_UNSPEC, nil), func(m netlink.Message) error {
		flow, err := decodeFlow(m)
		if err == nil {
			f(flow)
		}
		return err
	})
	if err != nil && !errors.Is(err, nfnl.ErrInterrupted) {
		return fmt.Errorf("list connections: %w", err)
	}
	return nil
}

func decodeFlow(m netlink.Message) (Flow, error) {
	var f Flow
	err := nfnl.EachAttribute(m, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case attrTupleOriginal:
			ad.Nested(tupleInto(&f.Original, &f.Protocol))
		case attrTupleReply:
			ad.Nested(tupleInto(&f.Reply, &f.Protocol))
		case attrID:
			f.ID = ad.Uint32()
		case attrStatus:
			f.Status = Status(ad.Uint32())
		case attrTimeout:
			f.Timeout = time.Duration(ad.Uint32()) * time.Second
		case attrMark:
			f.Mark = ad.Uint32()
		case attrZone:
			f.Zone = ad.Uint16()
		case attrProtoInfo:
			ad.Nested(stateInto(&f.State))
		case attrHelp:
			ad.Nested(helperInto(&f.Helper))
		case attrCountersOrig:
			f.Accounted = true
			ad.Nested(countInto(&f.SeenOriginal))
		case attrCountersReply:
			ad.Nested(countInto(&f.SeenReply))
		}
	})
	if err != nil {
		return f, fmt.Errorf("decode connection: %w", err)
	}
	return f, nil
}

// each calls f for the attributes of a nest.
func each(f func(ad *netlink.AttributeDecoder)) func(*netlink.AttributeDecoder) error {
	return func(ad *netlink.AttributeDecoder) error {
		for ad.Next() {
			f(ad)
		}
		return nil
	}
}

func tupleInto(t *Tuple, protocol *uint8) func(*netlink.AttributeDecoder) error {
	return func(ad *netlink.AttributeDecoder) error {
		var source, destination netip.Addr
		var ports [2]uint16
		for ad.Next() {
			switch ad.Type() {
			case attrTupleIP:
				ad.Nested(each(func(ip *netlink.AttributeDecoder) {
					switch ip.Type() {
					case attrSource4, attrSource6:
						source, _ = netip.AddrFromSlice(ip.Bytes())
					case attrDestination4, attrDestination6:
						destination, _ = netip.AddrFromSlice(ip.Bytes())
					}
				}))
			case attrTupleProto:
				ad.Nested(each(func(proto *netlink.AttributeDecoder) {
					switch proto.Type() {
					case attrProtoNumber:
						*protocol = proto.Uint8()
					case attrSourcePort:
						ports[0] = proto.Uint16()
					case attrDestinationPort:
						ports[1] = proto.Uint16()
					}
				}))
			}
		}
		*t = Tuple{netip.AddrPortFrom(source, ports[0]), netip.AddrPortFrom(destination, ports[1])}
		return nil
	}
}

func stateInto(state *string) func(*netlink.AttributeDecoder) error {
	return each(func(info *netlink.AttributeDecoder) {
		if info.Type() != attrInfoTCP {
			return
		}
		info.Nested(each(func(tcp *netlink.AttributeDecoder) {
			if tcp.Type() != attrTCPState {
				return
			}
			n := int(tcp.Uint8())
			*state = fmt.Sprintf("STATE_%d", n)
			if n < len(tcpStates) {
				*state = tcpStates[n]
			}
		}))
	})
}

func helperInto(name *string) func(*netlink.AttributeDecoder) error {
	return each(func(help *netlink.AttributeDecoder) {
		if help.Type() == attrHelpName {
			*name = string(bytes.TrimRight(help.Bytes(), "\x00"))
		}
	})
}

func countInto(c *Count) func(*netlink.AttributeDecoder) error {
	return each(func(counter *netlink.AttributeDecoder) {
		switch counter.Type() {
		case attrPackets:
			c.Packets = counter.Uint64()
		case attrBytes:
			c.Bytes = counter.Uint64()
		}
	})
}
