// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Registers as nft allocates them, so that it can print what it finds: a second
// field of four bytes goes to the fourth quarter after register 1, a second
// field behind 16 bytes to register 2.
const (
	reg1     = 1
	reg2     = 2
	reg1Next = unix.NFT_REG32_01
)

// Offsets of addresses in their network header.
const (
	source4, destination4 = 12, 16
	source6, destination6 = 8, 24
	len4, len6            = 4, 16
)

func meta(key expr.MetaKey) expr.Any {
	return &expr.Meta{Key: key, Register: reg1}
}

func equal(value []byte) expr.Any {
	return &expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: value}
}

// group matches the link group of the device that key names.
func group(key expr.MetaKey, number uint32) []expr.Any {
	return []expr.Any{meta(key), equal(binaryutil.NativeEndian.PutUint32(number))}
}

// notGroup is the opposite of group.
func notGroup(key expr.MetaKey, number uint32) []expr.Any {
	return []expr.Any{meta(key),
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg1, Data: binaryutil.NativeEndian.PutUint32(number)}}
}

// state matches a bit of what conntrack says about a packet.
func state(bit uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: reg1},
		&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(bit), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg1, Data: make([]byte, 4)},
	}
}

// isIPv4 and isIPv6 are what nft puts before every match on an address.
func isIPv4() []expr.Any {
	return []expr.Any{meta(expr.MetaKeyNFPROTO), equal([]byte{unix.NFPROTO_IPV4})}
}

func isIPv6() []expr.Any {
	return []expr.Any{meta(expr.MetaKeyNFPROTO), equal([]byte{unix.NFPROTO_IPV6})}
}

func network(offset, size, register uint32) expr.Any {
	return &expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size, DestRegister: register}
}

func in(set *setSpec) expr.Any {
	return &expr.Lookup{SourceRegister: reg1, SetName: set.name}
}

func notIn(set *setSpec) expr.Any {
	return &expr.Lookup{SourceRegister: reg1, SetName: set.name, Invert: true}
}

// translated replaces register 1 by what the map holds for it.
func translated(set *setSpec) expr.Any {
	return &expr.Lookup{SourceRegister: reg1, SetName: set.name, DestRegister: reg1, IsDestRegSet: true}
}

func snat(protocol uint32) expr.Any {
	return &expr.NAT{Type: expr.NATTypeSourceNAT, Family: protocol, RegAddrMin: reg1, RegAddrMax: reg1}
}

func verdict(kind expr.VerdictKind) expr.Any { return &expr.Verdict{Kind: kind} }

func goTo(chain string) expr.Any {
	return &expr.Verdict{Kind: expr.VerdictGoto, Chain: chain}
}

func join(parts ...any) []expr.Any {
	var all []expr.Any
	for _, part := range parts {
		switch part := part.(type) {
		case []expr.Any:
			all = append(all, part...)
		case expr.Any:
			all = append(all, part)
		}
	}
	return all
}
