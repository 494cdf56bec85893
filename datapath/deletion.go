// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/zipline-cni/zipline/internal/rcu"
)

// deletionPoll is how often an unlisting device is looked for. The look-up
// itself waits for the lock that the deletion holds.
const deletionPoll = 200 * time.Microsecond

// deletion is a device on its way out. The kernel takes it out of sight (the
// name, the addresses, the routes, the program, the other end) within a
// millisecond, and returns after two grace periods more (netdev_run_todo).
type deletion struct {
	name   string
	index  int
	result chan error
	ended  bool
	err    error
}

// deleteDevice starts to delete a device; index 0 is none.
func deleteDevice(name string, index int) *deletion {
	d := &deletion{name: name, index: index, result: make(chan error, 1)}
	if index == 0 {
		rcu.Settle() // an earlier removal may have been killed
		d.ended = true
		return d
	}
	go func() {
		err := rcu.Expedite(func() error {
			return netlink.LinkDel(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: name, Index: index}})
		})
		if err != nil && !isNotFound(err) {
			d.result <- fmt.Errorf("delete device %s: %w", name, err)
			return
		}
		d.result <- nil
	}()
	return d
}

// unlisted waits until the device is out of sight.
func (d *deletion) unlisted() error {
	for !d.ended {
		if _, err := netlink.LinkByIndex(d.index); isNotFound(err) {
			return nil
		} else if err != nil {
			return fmt.Errorf("look for device %s: %w", d.name, err)
		}
		select {
		case d.err = <-d.result:
			d.ended = true
		case <-time.After(deletionPoll):
		}
	}
	return d.err
}

// done waits until the kernel has let go of the device.
func (d *deletion) done() error {
	if !d.ended {
		d.err, d.ended = <-d.result, true
		return d.err
	}
	return nil
}
