// SPDX-License-Identifier: Apache-2.0

package prog

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf/link"
)

// Severed lists the pins of links whose device is gone, where [Attach] puts them:
// in the bpffs itself, not in directories, which belong to somebody. The kernel
// lets nobody do anything with such a link but forget it (tcx_link_update gives
// ENOLINK). No bpffs has none.
func Severed() ([]string, error) {
	entries, err := os.ReadDir(bpffs)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list pins: %w", err)
	}
	var paths []string
	for _, entry := range entries {
		if path := filepath.Join(bpffs, entry.Name()); !entry.IsDir() && isSevered(path) {
			paths = append(paths, path)
		}
	}
	return paths, nil
}

// RemoveSevered removes the pin of a link whose device is gone, and no other.
func RemoveSevered(path string) error {
	if !isSevered(path) {
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove pin of a device that is gone: %w", err)
	}
	return nil
}

func isSevered(path string) bool {
	l, err := link.LoadPinnedLink(path, nil)
	if err != nil {
		return false // a program, a map, or the kernel's own
	}
	defer func() { _ = l.Close() }() // only read from
	info, err := l.Info()
	if err != nil {
		return false
	}
	tcx := info.TCX()
	return tcx != nil && tcx.Ifindex == 0
}
