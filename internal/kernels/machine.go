// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"time"
)

// testKernel boots a kernel with the tests and returns what came of them. dir
// is for its files.
func testKernel(ctx context.Context, k *kernel, base *image, dir string, o options, log io.Writer) (*report, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make directory: %w", err)
	}
	i := base.clone()
	if err := i.tree(path.Join("/lib/modules", k.release), k.modules); err != nil {
		return nil, fmt.Errorf("add modules: %w", err)
	}
	initramfs := filepath.Join(dir, "initramfs")
	if err := i.write(initramfs); err != nil {
		return nil, err
	}
	defer func() { _ = os.Remove(initramfs) }() // large
	output := filepath.Join(dir, "output")
	start := time.Now()
	err := boot(ctx, k, initramfs, filepath.Join(dir, "console"), output, o.timeout)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	text, readErr := os.ReadFile(output)
	if readErr != nil {
		return nil, errors.Join(err, readErr)
	}
	if o.verbose {
		_, _ = log.Write(text)
	}
	r, parseErr := parseReport(ctx, k, text)
	if parseErr != nil {
		return nil, parseErr
	}
	r.elapsed = time.Since(start)
	if err != nil {
		r.broken = append(r.broken, err.Error())
	}
	if len(r.broken) > 0 {
		r.console = tail(filepath.Join(dir, "console"))
	}
	return r, nil
}

// boot starts the machine and waits for its end.
func boot(ctx context.Context, k *kernel, initramfs, console, output string, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64",
		// qemu 7.2 emulates cmpxchg16b with wrong flags, and code that is
		// patched while the other processor runs it (static keys): the kernel
		// panics in the allocator and in netif_rx. So: a processor of before
		// AVX, without that instruction, and one thread for both.
		"-accel", "tcg,thread=single", "-cpu", "Westmere,-cx16,+rdrand", "-smp", "2", "-m", "1G",
		"-nodefaults", "-display", "none", "-no-reboot",
		"-serial", "file:"+console, "-serial", "file:"+output,
		"-kernel", k.image, "-initrd", initramfs,
		"-append", "console=ttyS0 panic=-1 loglevel=4 mitigations=off random.trust_cpu=on")
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return fmt.Errorf("run %s: not done after %v", k.release, limit)
	}
	if err != nil {
		return fmt.Errorf("run %s: %w\n%s", k.release, err, out)
	}
	return nil
}

// tail returns the end of a file.
func tail(name string) string {
	text, err := os.ReadFile(name)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-4000):])
}
