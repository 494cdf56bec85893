// SPDX-License-Identifier: Apache-2.0

package cni

import "github.com/containernetworking/cni/pkg/types"

// maxVLAN is the highest VLAN identifier (IEEE 802.1Q, 9.6).
const maxVLAN = 4094

// checkVLAN refuses VLAN keys that the bridge plugin refuses, with its words.
func (c *Config) checkVLAN() *types.Error {
	if c.VLAN < 0 || c.VLAN > maxVLAN {
		return invalid("vlan", "invalid VLAN ID %d (must be between 0 and %d)", c.VLAN, maxVLAN)
	}
	for _, t := range c.VLANTrunk {
		if text := t.wrong(); text != "" {
			return invalid("vlanTrunk", "%s", text)
		}
	}
	return nil
}

func (t vlanTrunk) wrong() string {
	bad := func(id *int) bool { return id != nil && (*id <= 0 || *id > maxVLAN) }
	switch {
	case t.MinID == nil && t.MaxID != nil:
		return "minID and maxID should be configured simultaneously, minID is missing"
	case t.MinID != nil && t.MaxID == nil:
		return "minID and maxID should be configured simultaneously, maxID is missing"
	case bad(t.MinID):
		return "incorrect trunk minID parameter"
	case bad(t.MaxID):
		return "incorrect trunk maxID parameter"
	case t.MinID != nil && *t.MaxID < *t.MinID:
		return "minID is greater than maxID in trunk parameter"
	case bad(t.ID):
		return "incorrect trunk id parameter"
	}
	return ""
}
