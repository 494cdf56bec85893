// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/zipline-cni/zipline/internal/kernels/plan"
	"github.com/zipline-cni/zipline/internal/reference"
	"github.com/zipline-cni/zipline/internal/tbrun"
)

// suite is what is tested of a package.
type suite struct {
	pkg     string
	run     string   // default of -run
	files   []string // directories that the tests read, besides testdata
	modules []string
}

// packages are the tests that depend on the kernel. The first ones meet a
// kernel that has loaded nothing yet.
var packages = []suite{
	{pkg: "loader"},
	{pkg: "loader/prog"},
	{pkg: "bpf", files: []string{"lib"}},
	{pkg: "datapath/conntrack"},
	{pkg: "datapath/nat"},
	{pkg: "internal/nlink", run: "Delet|Child|Heard"},
	{pkg: "internal/orphan"},
	{pkg: "cmd/zipline", run: "^TestTraffic$/./^(kernel|direct|tracked)$", modules: []string{"br_netfilter"}},
}

// programs that the tests and the kernel execute. busybox is the rest.
var programs = []string{
	"sh", // busybox's own prefers its applets: another ip
	"ip", "tc", "nft", "iptables", "ip6tables", "iptables-save", "ip6tables-save", "conntrack", "ping", "nsenter",
	"sysctl", "bpftool", "modprobe",
}

// newBase returns the part of the image that all kernels share.
func newBase(ctx context.Context, work string, o options) (*image, error) {
	i := newImage()
	if err := addTests(ctx, i, work, o); err != nil {
		return nil, err
	}
	if err := addPlugins(ctx, i); err != nil {
		return nil, err
	}
	if err := addPrograms(ctx, i); err != nil {
		return nil, err
	}
	for _, dir := range []string{"/var/lib", "/etc/cni", "/root", plan.Dump} {
		i.directory(dir)
	}
	i.text("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
	i.text("/etc/group", "root:x:0:\n")
	i.text("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n")
	return i, nil
}

// addTests builds the test binaries and the first process, and adds them with
// the plan.
func addTests(ctx context.Context, i *image, work string, o options) error {
	p := plan.Plan{Env: map[string]string{
		"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root",
		// A missing program fails a test instead of skipping it; what the
		// kernel lacks skips.
		"CI": "kernels", "ZIPLINE_TEST_BIN": plan.Bin, "ZIPLINE_TEST_DUMP": plan.Dump, "ZIPLINE_TEST_KERNEL": "other", "ZIPLINE_TEST_SLOWNESS": "10",
	}}
	for _, s := range packages {
		if len(o.packages) > 0 && !slices.Contains(o.packages, s.pkg) {
			continue
		}
		run := o.run
		if run == "" {
			run = s.run
		}
		binary := filepath.Join(work, strings.ReplaceAll(s.pkg, "/", "-"))
		if err := goTool(ctx, "test", "-c", "-trimpath", "-ldflags=-s -w", "-o", binary, "./"+s.pkg); err != nil {
			return err
		}
		dir := path.Join(plan.Root, s.pkg)
		if err := i.file(path.Join(dir, plan.TestBinary), binary); err != nil {
			return err
		}
		for _, files := range append(s.files, "testdata") {
			if err := i.tree(path.Join(dir, files), filepath.Join(s.pkg, files)); err != nil {
				return err
			}
		}
		p.Tests = append(p.Tests, plan.Binary{Package: s.pkg, Modules: s.modules, Args: []string{
			"-test.v=test2json", "-test.run=" + run, "-test.timeout=" + o.timeout.String(),
			"-test.parallel=2", // what waits for a processor measures nothing
		}})
	}
	text, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("marshal plan: %w", err)
	}
	i.text(plan.File, string(text))
	i.text(path.Join(plan.Root, "go.mod"), "// marks the root for tests\n")
	guest := filepath.Join(work, "guest")
	if err := goTool(ctx, "build", "-trimpath", "-ldflags=-s -w", "-o", guest, "./internal/kernels/guest"); err != nil {
		return err
	}
	return i.file("/init", guest)
}

// addPlugins adds the plugin and the ones it is compared with.
func addPlugins(ctx context.Context, i *image) error {
	var directory, zipline string
	err := tbrun.Run(ctx, os.Stderr, func(tb testing.TB) {
		directory, zipline = reference.Plugins(tb), reference.BuildZipline(tb)
	})
	if err != nil {
		return err
	}
	if err := i.tree(plan.Bin, directory); err != nil {
		return err
	}
	return i.file(path.Join(plan.Bin, "zipline"), zipline)
}

// addPrograms adds programs of this machine with their libraries.
func addPrograms(ctx context.Context, i *image) error {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return err
	}
	if err := i.file("/bin/busybox", busybox); err != nil {
		return err
	}
	applets, err := exec.CommandContext(ctx, busybox, "--list").Output()
	if err != nil {
		return fmt.Errorf("list applets: %w", err)
	}
	for _, applet := range strings.Fields(string(applets)) {
		if applet != "busybox" {
			i.link("/bin/"+applet, "busybox")
		}
	}
	// nft and iptables load these by name.
	plugins, err := filepath.Glob("/usr/lib/*/xtables/*.so")
	if err != nil {
		return err
	}
	for _, file := range plugins {
		if err := i.file(file, file); err != nil {
			return err
		}
	}
	for _, name := range programs {
		program, err := exec.LookPath(name)
		if err != nil {
			return err
		}
		if err := addProgram(ctx, i, "/sbin/"+name, program); err != nil {
			return err
		}
	}
	return nil
}

var library = regexp.MustCompile(`(?:=> )?(/\S+) \(0x`)

// addProgram adds one program and the libraries that ldd lists.
func addProgram(ctx context.Context, i *image, name, program string) error {
	if err := i.file(name, program); err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, "ldd", program).Output()
	if err != nil {
		return fmt.Errorf("list libraries of %s: %w", program, err)
	}
	for _, found := range library.FindAllStringSubmatch(string(out), -1) {
		if err := i.file(found[1], found[1]); err != nil {
			return err
		}
	}
	return nil
}

// goTool runs the go command. Cgo is off: the guest has no C library but what
// the copied programs need.
func goTool(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", args[0], err, out)
	}
	return nil
}
