// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// open returns the content of a file in an image and its size.
func (e entry) open() (io.ReadCloser, int, error) {
	if e.source == "" {
		return io.NopCloser(bytes.NewReader(e.text)), len(e.text), nil
	}
	file, err := os.Open(e.source)
	if err != nil {
		return nil, 0, err
	}
	info, err := file.Stat()
	if err != nil {
		_ = file.Close() // read only
		return nil, 0, err
	}
	return file, int(info.Size()), nil
}

// unixMode is what stat(2) calls st_mode.
func (e entry) unixMode() uint32 {
	mode := uint32(e.mode.Perm())
	switch e.mode.Type() {
	case fs.ModeDir:
		return mode | unix.S_IFDIR
	case fs.ModeSymlink:
		return mode | unix.S_IFLNK
	default:
		return mode | unix.S_IFREG
	}
}

// padding fills up to a multiple of four bytes.
func padding(size int) string { return "\x00\x00\x00"[:-size&3] }
