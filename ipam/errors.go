// SPDX-License-Identifier: Apache-2.0

package ipam

import (
	"errors"
	"io/fs"
	"os"
)

// Errors that say what became of a request. They are wrapped in errors that name
// the address, range set or owner; test for them with [errors.Is].
var (
	// ErrExhausted: a range set has no free address.
	ErrExhausted = errors.New("no IP addresses available")
	// ErrInUse: a requested address is leased to another owner.
	ErrInUse = errors.New("address in use")
	// ErrDuplicate: the container holds a lease in host-local's older format,
	// which does not say for which interface, so no other can be given to it.
	ErrDuplicate = errors.New("duplicate allocation is not allowed")
	// ErrNotLeased: the owner holds no lease in a range set.
	ErrNotLeased = errors.New("no address is leased")
)

// ConfigError is a network configuration, or an argument beside it, that cannot
// be used. Nothing was leased.
type ConfigError struct {
	// Key is the path of the key at fault, such as ipam.ranges[0][1].subnet.
	// It begins with CNI_ARGS for that variable, is CNI_CONTAINERID for an
	// unusable container id, and is empty where the input is no JSON object.
	Key string
	// Msg says what is wrong with it.
	Msg string
}

func (e *ConfigError) Error() string {
	if e.Key == "" {
		return e.Msg
	}
	return e.Key + ": " + e.Msg
}

// IOError is a file or directory that could not be read or written, such as a
// data directory on a read-only file system.
type IOError struct {
	// Op is what was tried, in the words of [fs.PathError].
	Op string
	// Path is the file or directory at fault.
	Path string
	// Err is the cause.
	Err error
}

func (e *IOError) Error() string { return e.Op + " " + e.Path + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *IOError) Unwrap() error { return e.Err }

// ioError turns an error of package os into an IOError. The path is used where
// the error doesn't name one itself.
func ioError(op, path string, err error) error {
	var (
		known *IOError
		file  *fs.PathError
		link  *os.LinkError
	)
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known):
		return known
	case errors.As(err, &file):
		return &IOError{Op: file.Op, Path: file.Path, Err: file.Err}
	case errors.As(err, &link):
		return &IOError{Op: link.Op, Path: link.New, Err: link.Err}
	}
	return &IOError{Op: op, Path: path, Err: err}
}
