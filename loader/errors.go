// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

var (
	// ErrNotLoaded says that the node has no programs and maps of ours.
	ErrNotLoaded = errors.New("not loaded on this node")
	// ErrNotFound says that the map has no entry for the address or device.
	ErrNotFound = errors.New("no such entry")
	// ErrFull says that the map has no room for another entry.
	ErrFull = errors.New("map is full")
	// ErrNotSupported says that the kernel lacks something the programs need.
	ErrNotSupported = errors.New("not supported by this kernel")
	// ErrNotPermitted says that the kernel could, but this process may not:
	// no CAP_BPF and CAP_NET_ADMIN, lockdown, or a security module.
	ErrNotPermitted = errors.New("not permitted")
	// ErrBusy says that another process has held the node's lock for too long.
	ErrBusy = errors.New("locked by another process")

	// ErrDetached says that no program of ours is attached to the device.
	ErrDetached = errors.New("program is detached")
	// ErrOtherVersion says that the device has another version of the program,
	// with the right maps.
	ErrOtherVersion = errors.New("another version of the program is attached")
	// ErrOtherMaps says that the device has a program of ours that uses maps
	// which are not the node's.
	ErrOtherMaps = errors.New("the attached program uses other maps")
	// ErrForeign says that somebody else's filter has the place of ours.
	ErrForeign = errors.New("a foreign filter is in the way")

	// errNoProgram says that a device has no program of ours.
	errNoProgram = errors.New("no program")
)

// BPFFSError says why no bpffs can be used at a path.
type BPFFSError struct {
	// Path is where the bpffs was expected.
	Path string
	// Err is the cause.
	Err error
}

// Error returns the path and the cause.
func (e *BPFFSError) Error() string { return fmt.Sprintf("bpffs at %s: %v", e.Path, e.Err) }

// Unwrap returns the cause.
func (e *BPFFSError) Unwrap() error { return e.Err }

// LoadError says why the kernel did not take the programs. Formatted with %+v
// it ends with the verifier's whole log, else with the log's essence. It is an
// [ErrNotSupported] or an [ErrNotPermitted] where the cause is one of these.
type LoadError struct {
	// Err is the cause.
	Err error
	// Kind is ErrNotSupported, ErrNotPermitted or nil.
	Kind error
}

// Error returns the cause in one line.
func (e *LoadError) Error() string {
	if e.Kind != nil {
		return fmt.Sprintf("load programs: %v: %v", e.Kind, e.Err)
	}
	return fmt.Sprintf("load programs: %v", e.Err)
}

// Unwrap returns the cause and its kind.
func (e *LoadError) Unwrap() []error {
	if e.Kind == nil {
		return []error{e.Err}
	}
	return []error{e.Err, e.Kind}
}

// Format writes the error; %+v adds the verifier's log.
func (e *LoadError) Format(f fmt.State, verb rune) {
	_, _ = fmt.Fprint(f, e.Error()) // a formatter has nowhere to report to
	var verifier *ebpf.VerifierError
	if verb == 'v' && f.Flag('+') && errors.As(e.Err, &verifier) {
		_, _ = fmt.Fprintf(f, "\n%+v", verifier)
	}
}
