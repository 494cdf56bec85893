// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/datapath/nat"
	"github.com/zipline-cni/zipline/loader"
)

// Status says whether this node can make endpoints of the mode: nil, or an
// error that names what is missing. A mode that falls back by itself
// ([ForwardingAuto]) is not held against the kernel's lack of eBPF.
func Status(f Forwarding) error {
	if err := inNewNetns(tryKernel); err != nil {
		return err
	}
	if f != ForwardingDirect && f != ForwardingTracked {
		return nil
	}
	report := loader.Probe()
	err := report.Err()
	if f == ForwardingTracked {
		err = errors.Join(err, report.Conntrack)
	}
	if err != nil {
		return &UnsupportedError{Key: "forwarding", Reason: fmt.Errorf("%s falls back to tier %s: %w", f, report.Tier(), err)}
	}
	return nil
}

// tryKernel makes a veth pair and the whole ruleset in a namespace that ends
// with the thread: the only honest answer to whether the kernel has it all.
func tryKernel() (err error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = devicePrefix + "status"
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "peer"}); err != nil {
		return &UnsupportedError{Key: "veth", Reason: fmt.Errorf("create veth pair: %w", err)}
	}
	rules, err := nat.Open()
	if err != nil {
		return &UnsupportedError{Key: "nftables", Reason: err}
	}
	defer func() { err = errors.Join(err, rules.Close()) }()
	if err := rules.Install(); err != nil {
		return &UnsupportedError{Key: "nftables", Reason: err}
	}
	return nil
}

// inNewNetns runs f in a network namespace of its own, on a thread that is
// not used again.
func inNewNetns(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends here
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("make network namespace: %w", err)
			return
		}
		done <- f()
	}()
	return <-done
}
