// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// trees are the directories of modules that the tests may need, with what those
// depend on.
var trees = []string{"kernel/net", "kernel/lib", "kernel/crypto", "kernel/arch/x86/crypto", "kernel/drivers/net"}

// hardware has no place in a machine without any.
var hardware = []string{
	"drivers/net/ethernet", "drivers/net/wireless", "drivers/net/usb", "drivers/net/wwan", "drivers/net/can",
	"drivers/net/phy", "drivers/net/hyperv", "net/bluetooth", "net/mac80211", "net/wireless", "net/sunrpc", "net/rds", "net/tipc",
}

// keepNetwork moves the kernel and its network modules from an unpacked
// package to another directory, and indexes the modules.
func keepNetwork(ctx context.Context, from, to, release string) error {
	modules := filepath.Join(from, "usr/lib/modules", release)
	if _, err := os.Stat(modules); errors.Is(err, fs.ErrNotExist) {
		modules = filepath.Join(from, "lib/modules", release)
	}
	image := filepath.Join(modules, "vmlinuz") // since 7.0
	if _, err := os.Stat(image); errors.Is(err, fs.ErrNotExist) {
		image = filepath.Join(from, "boot", "vmlinuz-"+release)
	}
	if err := move(image, filepath.Join(to, "vmlinuz")); err != nil {
		return err
	}
	for _, dir := range hardware {
		if err := os.RemoveAll(filepath.Join(modules, "kernel", dir)); err != nil {
			return err
		}
	}
	target := filepath.Join(to, "lib/modules", release)
	for _, tree := range append(trees, "modules.order", "modules.builtin", "modules.builtin.modinfo") {
		err := move(filepath.Join(modules, tree), filepath.Join(target, tree))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := decompress(ctx, target); err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, "depmod", "-b", to, release).CombinedOutput(); err != nil {
		return fmt.Errorf("index modules: %w\n%s", err, out)
	}
	return nil
}

// decompress makes all modules plain files, which costs less here than in the
// emulated machine.
func decompress(ctx context.Context, dir string) error {
	var packed []string
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".ko.xz") {
			packed = append(packed, path)
		}
		return err
	})
	if err != nil || len(packed) == 0 {
		return err
	}
	if out, err := exec.CommandContext(ctx, "xz", append([]string{"-d"}, packed...)...).CombinedOutput(); err != nil {
		return fmt.Errorf("decompress modules: %w\n%s", err, out)
	}
	return nil
}

func move(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.Rename(from, to)
}
