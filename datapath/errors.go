// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/zipline-cni/zipline/loader"
)

// Errors that callers tell apart.
var (
	// ErrExists says that the attachment, or an interface of its name in
	// the container, is there already.
	ErrExists = errors.New("interface exists")
	// ErrBusy says that another process has held a lock of the node for too long.
	ErrBusy = loader.ErrBusy
	// ErrNetns says that the path is not a network namespace one can enter.
	ErrNetns  = errors.New("not a usable network namespace")
	errNoIPv6 = errors.New("an IPv6 address is leased, and the devices have no IPv6")
	// ErrOwnNetns says that the container's namespace is the node's own.
	ErrOwnNetns = errors.New("the container's network namespace is the node's own")
)

// AddressInUseError says that another endpoint of this node has the address.
type AddressInUseError struct {
	Address netip.Addr
	Owner   string // device or attachment that has it
}

func (e *AddressInUseError) Error() string {
	return fmt.Sprintf("address %s is in use by %s", e.Address, e.Owner)
}

// UnsupportedError says that the kernel lacks something that was asked for
// by name.
type UnsupportedError struct {
	Key    string // the configuration key that asked
	Reason error
}

func (e *UnsupportedError) Error() string { return fmt.Sprintf("%s: %v", e.Key, e.Reason) }
func (e *UnsupportedError) Unwrap() error { return e.Reason }

// ConfigError says that the kernel refused something that the configuration
// asked for.
type ConfigError struct {
	Key   string // the configuration key at fault
	Value string // what it asked for
	Err   error
}

func (e *ConfigError) Error() string { return fmt.Sprintf("%s %s: %v", e.Key, e.Value, e.Err) }
func (e *ConfigError) Unwrap() error { return e.Err }
