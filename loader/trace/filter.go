// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/zipline-cni/zipline/bpf"
)

// Filter says which events are wanted. The kernel decides it, so what is not
// wanted costs little. Within one field any value will do, and each field that
// is set must be met. The zero value wants everything.
type Filter struct {
	// Hooks are the programs to watch.
	Hooks []bpf.Hook
	// Reasons are those wanted.
	Reasons []bpf.Reason
	// Protocols are IP protocol numbers; ARP wants ARP packets.
	Protocols []uint8
	ARP       bool
	// Ports, and Prefixes, of either end, before or after translation.
	Ports    []uint16
	Prefixes []netip.Prefix
	// Devices are the host veths of endpoints of which either end is one.
	Devices []int
}

// constants sets what the programs take for granted.
func (f *Filter) constants() map[string]any {
	var reasons [4]uint32
	var protocols [8]uint32
	all := len(f.Protocols) == 0 && !f.ARP
	for r := range uint32(bpf.Reasons) {
		if len(f.Reasons) == 0 {
			reasons[r>>5] |= 1 << (r & 31)
		}
	}
	for _, r := range f.Reasons {
		reasons[r>>5&3] |= 1 << (r & 31)
	}
	for p := range 256 {
		if all {
			protocols[p>>5] |= 1 << (p & 31)
		}
	}
	for _, p := range f.Protocols {
		protocols[p>>5] |= 1 << (p & 31)
	}
	return map[string]any{
		bpf.TraceVarWantReasons: reasons, bpf.TraceVarWantProtocols: protocols,
		bpf.TraceVarWantArp: all || f.ARP, bpf.TraceVarWantOther: all,
		bpf.TraceVarFilterPorts:    len(f.Ports) > 0,
		bpf.TraceVarFilterPrefixes: len(f.Prefixes) > 0,
		bpf.TraceVarFilterDevices:  len(f.Devices) > 0,
	}
}

// fill writes the maps that the programs look values up in.
func (f *Filter) fill(maps map[string]*ebpf.Map) error {
	var errs []error
	for _, port := range f.Ports {
		errs = append(errs, maps[bpf.TraceMapTracePorts].Put(port, uint8(1)))
	}
	for _, prefix := range f.Prefixes {
		errs = append(errs, maps[bpf.TraceMapTracePrefixes].Put(prefixKey(prefix), uint8(1)))
	}
	for _, index := range f.Devices {
		errs = append(errs, maps[bpf.TraceMapTraceDevices].Put(uint32(index), uint8(1)))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("write filter: %w", err)
	}
	return nil
}

// prefixKey is the prefix as the maps have it, IPv4 within ::ffff:0:0/96.
func prefixKey(prefix netip.Prefix) (k bpf.TracePrefix) {
	k.Bits = uint32(prefix.Bits())
	if prefix.Addr().Is4() {
		k.Bits += 96
	}
	b := prefix.Addr().As16()
	for i := range k.Addr.W {
		k.Addr.W[i] = binary.NativeEndian.Uint32(b[4*i:])
	}
	return k
}
