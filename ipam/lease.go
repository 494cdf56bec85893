// SPDX-License-Identifier: Apache-2.0

package ipam

import (
	"net/netip"
	"slices"
	"strings"
)

// Owner is who holds a lease: one attachment of a container to the network.
type Owner struct {
	// ContainerID is the runtime's id, CNI_CONTAINERID.
	ContainerID string
	// IfName is the interface's name in the container. It is empty for a lease
	// in the older format of host-local, which holds only the container id.
	IfName string
}

// Lease is an address that an owner holds.
type Lease struct {
	Address netip.Addr // IPv4 or IPv6, never an IPv4 address as IPv6
	Owner   Owner      // as the lease file has it
}

// lineBreak stands between container id and interface name in a lease file.
const lineBreak = "\r\n"

// validate refuses an owner that a lease file could not name.
func (o Owner) validate() error {
	if o.ContainerID == "" {
		return &ConfigError{"CNI_CONTAINERID", "missing"}
	}
	if strings.ContainsAny(o.ContainerID, "\r\n\x00") {
		return &ConfigError{"CNI_CONTAINERID", "has a line break or a NUL in it"}
	}
	return nil
}

// normal returns the owner as it is read back from a lease file.
func (o Owner) normal() Owner {
	return Owner{strings.TrimSpace(o.ContainerID), strings.TrimSpace(o.IfName)}
}

// container returns the owner of the container's leases in the older format.
func (o Owner) container() Owner { return Owner{ContainerID: o.ContainerID} }

// String returns "<container id>/<ifname>".
func (o Owner) String() string {
	if o.IfName == "" {
		return o.ContainerID
	}
	return o.ContainerID + "/" + o.IfName
}

// formatLease returns the content of the owner's lease files, byte for byte what
// host-local writes.
func formatLease(o Owner) []byte { return []byte(o.ContainerID + lineBreak + o.IfName) }

// parseLease returns whose lease file has this content. Blanks around either
// name don't count, and the line may break with or without a carriage return.
// It returns false for a file that names nobody: such a file is no lease. That
// is an empty one, and one of NULs, which a file system may make of a file that
// was being written when the power failed.
func parseLease(content []byte) (Owner, bool) {
	id, ifName, _ := strings.Cut(strings.Trim(string(content), " \t\r\n\v\f\x00"), "\n")
	owner := Owner{id, ifName}.normal()
	return owner, owner.ContainerID != ""
}

// leaseName tells whether a file of this name is a lease, and of which address.
// Only the spelling that host-local writes counts.
func leaseName(name string) (netip.Addr, bool) {
	addr, ok := parseAddr(name)
	return addr, ok && addr.String() == name
}

// ValidOwners returns a function for [Pool.Collect] that says true for these
// owners, and for a lease without interface name if any owner has its container
// id. No owners at all means that no lease is valid.
func ValidOwners(owners []Owner) func(Owner) bool {
	return func(lease Owner) bool {
		return slices.ContainsFunc(owners, func(owner Owner) bool {
			owner = owner.normal()
			return owner == lease || lease.IfName == "" && owner.ContainerID == lease.ContainerID
		})
	}
}
