// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/zipline-cni/zipline/bpf"
)

// uplinkPlaces is where programs go on an uplink.
var uplinkPlaces = []place{fromUplink, toDevice}

// AttachUplink attaches the node's programs to a device by which it reaches
// others, and lets packets of at most mtu bytes leave by it (0: the device's
// own MTU is all that limits them). It is cheap where that is so already, and
// does nothing where flows are not tracked. Returns [ErrForeign], [ErrFull].
func (n *Node) AttachUplink(index int, mtu uint32) error {
	if !n.TracksFlows() {
		return nil
	}
	if n.attachedAt(index, uplinkPlaces) != nil {
		if err := n.attach(index, uplinkPlaces); err != nil {
			return err
		}
	}
	// Published after its programs, so that what leaves by it can be answered.
	if now, err := n.uplink(index); err == nil && now.Mtu == mtu {
		return nil
	}
	return n.change(func() error { return n.publishUplink(uint32(index), mtu) })
}

// publishUplink tells each uplink whether there are others. It is never taken
// back: then the programs only look more closely than they need.
func (n *Node) publishUplink(index, mtu uint32) error {
	uplinks, err := entries[uint32, bpf.ZiplineUplink](n.maps[bpf.ZiplineMapUplinks])
	if err != nil {
		return err
	}
	uplinks[index] = bpf.ZiplineUplink{Mtu: mtu}
	for other, v := range uplinks {
		if len(uplinks) > 1 {
			v.Several = 1
		}
		if err := put(n.maps[bpf.ZiplineMapUplinks], other, v); err != nil {
			return fmt.Errorf("publish uplink %d: %w", other, err)
		}
	}
	return nil
}

// UplinkAttached returns nil if the device is an uplink with the node's
// programs, else [ErrNotFound], [ErrDetached], [ErrOtherVersion] or [ErrOtherMaps].
func (n *Node) UplinkAttached(index int) error {
	if err := n.attachedAt(index, uplinkPlaces); err != nil {
		return err
	}
	if _, err := n.uplink(index); err != nil {
		return fmt.Errorf("uplink %d: %w", index, err)
	}
	return nil
}

// Uplinks returns the indexes of the devices that packets may leave by.
func (n *Node) Uplinks() ([]int, error) {
	values, err := entries[uint32, bpf.ZiplineUplink](n.maps[bpf.ZiplineMapUplinks])
	indexes := make([]int, 0, len(values))
	for index := range values {
		indexes = append(indexes, int(index))
	}
	return indexes, err
}

func (n *Node) uplink(index int) (v bpf.ZiplineUplink, err error) {
	err = get(n.maps[bpf.ZiplineMapUplinks], uint32(index), &v)
	return v, err
}

// ReleaseUplinks takes the programs off the uplinks when no endpoint is left.
// It comes after a withdrawal; an endpoint that is published meanwhile attaches
// them again, since it does so after its publication.
func (n *Node) ReleaseUplinks() error {
	if n.hasEndpoints() {
		return nil
	}
	return n.change(func() error {
		if n.hasEndpoints() {
			return nil
		}
		indexes, err := n.Uplinks()
		errs := []error{err}
		for _, index := range indexes {
			errs = append(errs, remove(n.maps[bpf.ZiplineMapUplinks], uint32(index)))
			for _, p := range uplinkPlaces {
				if err := n.site.detach(index, p); err != nil && !isGone(err) {
					errs = append(errs, fmt.Errorf("detach from uplink %d: %w", index, err))
				}
			}
		}
		return errors.Join(errs...)
	})
}

// hasEndpoints asks for one entry: the map may have many.
func (n *Node) hasEndpoints() bool {
	var first bpf.ZiplineAddress
	err := n.maps[bpf.ZiplineMapEndpoints].NextKey(nil, &first)
	return !errors.Is(err, ebpf.ErrKeyNotExist)
}
