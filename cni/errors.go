// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/zipline-cni/zipline/datapath"
	"github.com/zipline-cni/zipline/ipam"
)

// Codes of the specification's STATUS that the library has from v1.3.1 on.
// v1.3.0 is used because later versions bring OpenTelemetry, net/http and TLS
// into the plugin: half a millisecond of every ADD and DEL.
const (
	codeNotAvailable        uint = 50
	codeLimitedConnectivity uint = 51
)

// Error codes of zipline, above the specification's own (docs/errors.md).
const (
	// CodeInterfaceExists: the container has an interface of this name.
	CodeInterfaceExists uint = 100
	// CodeAddressInUse: another endpoint of this node has the address.
	CodeAddressInUse uint = 101
	// CodeCheckFailed: CHECK found the attachment damaged.
	CodeCheckFailed uint = 102
	// CodeDelegateFailed: the IPAM plugin that was executed gave an error
	// without a code of its own.
	CodeDelegateFailed uint = 103
	// CodeKernel: the kernel refused a step of the datapath.
	CodeKernel uint = 104
	// CodeKernelLacks: the configuration asks by name for something that
	// this kernel does not have.
	CodeKernelLacks uint = 105
	// CodeNotReleased: DEL or GC could not remove everything.
	CodeNotReleased uint = 106
)

func newError(code uint, details, format string, args ...any) *types.Error {
	return types.NewError(code, fmt.Sprintf(format, args...), details)
}

// invalid reports a configuration key with a value that cannot be used.
func invalid(key, format string, args ...any) *types.Error {
	return newError(types.ErrInvalidNetworkConfig, key, format, args...)
}

// notYet reports a key whose meaning is to come, rather than ignore it.
func notYet(key, what string) *types.Error {
	return newError(types.ErrUnsupportedField, key, "%s is not supported yet", what)
}

// decodeError names the key at which the JSON is of the wrong type.
func decodeError(err error) *types.Error {
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		return newError(types.ErrDecodingFailure, wrong.Field, "decode network configuration: %s has the wrong type: %s", wrong.Field, wrong.Value)
	}
	return newError(types.ErrDecodingFailure, "", "decode network configuration: %v", err)
}

// addError chooses the code for what failed; object is named where the error
// itself names none.
func addError(err error, object string) *types.Error {
	e := codeOf(err)
	if e.Details == "" {
		e.Details = object
	}
	return e
}

func codeOf(err error) *types.Error {
	if e := ipamError(err); e != nil {
		return e
	}
	var inUse *datapath.AddressInUseError
	var config *datapath.ConfigError
	var unsupported *datapath.UnsupportedError
	switch {
	case errors.Is(err, datapath.ErrExists):
		return newError(CodeInterfaceExists, "CNI_IFNAME", "%v", oneLine(err))
	case errors.Is(err, datapath.ErrBusy):
		return newError(types.ErrTryAgainLater, "", "%v", oneLine(err))
	case errors.Is(err, datapath.ErrOwnNetns), errors.Is(err, datapath.ErrNetns):
		return newError(types.ErrInvalidNetNS, "CNI_NETNS", "%v", oneLine(err))
	case errors.As(err, &inUse):
		return newError(CodeAddressInUse, inUse.Address.String(), "%v", oneLine(err))
	case errors.As(err, &config):
		return newError(types.ErrInvalidNetworkConfig, config.Key, "%v", oneLine(err))
	case errors.As(err, &unsupported):
		return newError(CodeKernelLacks, unsupported.Key, "%v", oneLine(err))
	}
	return newError(CodeKernel, "", "%v", oneLine(err))
}

// ipamError chooses the code for an error of the address manager, nil when
// the error is not one.
func ipamError(err error) *types.Error {
	var cniErr *types.Error
	var config *ipam.ConfigError
	var io *ipam.IOError
	var path *fs.PathError
	switch {
	case errors.As(err, &cniErr):
		return cniErr
	case errors.As(err, &config):
		return newError(types.ErrInvalidNetworkConfig, config.Key, "%s", oneLine(err))
	case errors.Is(err, ipam.ErrExhausted):
		return newError(types.ErrTryAgainLater, "ipam", "%s", oneLine(err))
	case errors.Is(err, ipam.ErrInUse), errors.Is(err, ipam.ErrDuplicate):
		return newError(CodeAddressInUse, "ipam", "%s", oneLine(err))
	case errors.As(err, &io):
		return newError(types.ErrIOFailure, io.Path, "%s", oneLine(err))
	case errors.As(err, &path):
		return newError(types.ErrIOFailure, path.Path, "%s", oneLine(err))
	}
	return nil
}

// removeError reports a DEL or GC that could not remove all of the object.
func removeError(verb, object string, err error) *types.Error {
	return newError(CodeNotReleased, object, "%s: %v", verb, oneLine(err))
}

// withUndo adds what an undo could not undo to the error that made it needed.
func withUndo(e *types.Error, undo error) *types.Error {
	if undo != nil {
		e.Msg += "; undo: " + oneLine(undo)
	}
	return e
}

// oneLine makes one sentence of joined errors.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
