// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/kernels/plan"
)

func main() {
	err := run()
	if err != nil {
		_, _ = fmt.Println(plan.Mark, plan.Broken, err) // nobody is left to tell that it is lost
	}
	unix.Sync()
	// The machine is started so that it ends instead of restarting.
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}

func run() error {
	if err := mountAll(); err != nil {
		return err
	}
	port, err := openPort("/dev/ttyS1")
	if err != nil {
		return err
	}
	os.Stdout, os.Stderr = port, port
	text, err := os.ReadFile(plan.File)
	if err != nil {
		return fmt.Errorf("read plan: %w", err)
	}
	var p plan.Plan
	if err := json.Unmarshal(text, &p); err != nil {
		return fmt.Errorf("parse plan: %w", err)
	}
	for name, value := range p.Env {
		if err := os.Setenv(name, value); err != nil {
			return fmt.Errorf("set environment: %w", err)
		}
	}
	if err := startNetwork(); err != nil {
		return err
	}
	sayFacts()
	for _, b := range p.Tests {
		runTests(b)
	}
	_, err = fmt.Println(plan.Mark, plan.Done)
	return err
}

// mountAll mounts what programs expect of a machine.
func mountAll() error {
	for _, m := range []struct{ kind, dir, options string }{
		{"proc", "/proc", ""},
		{"sysfs", "/sys", ""},
		{"devtmpfs", "/dev", ""},
		{"bpf", "/sys/fs/bpf", "mode=0700"},
		{"cgroup2", "/sys/fs/cgroup", ""},
		{"tmpfs", "/run", "mode=0755"},
		{"tmpfs", "/tmp", "mode=1777"},
	} {
		if err := os.MkdirAll(m.dir, 0o755); err != nil {
			return fmt.Errorf("make mount point: %w", err)
		}
		if err := unix.Mount(m.kind, m.dir, m.kind, 0, m.options); err != nil {
			return fmt.Errorf("mount %s: %w", m.dir, err)
		}
	}
	return nil
}

// openPort opens a serial port that passes bytes on as they are.
func openPort(name string) (*os.File, error) {
	port, err := os.OpenFile(name, os.O_WRONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	attributes, err := unix.IoctlGetTermios(int(port.Fd()), unix.TCGETS)
	if err != nil {
		return nil, fmt.Errorf("set up %s: %w", name, err)
	}
	attributes.Oflag &^= unix.OPOST
	if err := unix.IoctlSetTermios(int(port.Fd()), unix.TCSETS, attributes); err != nil {
		return nil, fmt.Errorf("set up %s: %w", name, err)
	}
	return port, nil
}

// startNetwork does what every machine has done before a container comes.
func startNetwork() error {
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("set up lo: %w: %s", err, out)
	}
	return nil
}

// runTests runs a test binary in its package's directory.
func runTests(b plan.Binary) {
	_, _ = fmt.Println(plan.Mark, plan.Begin, b.Package)
	for _, module := range b.Modules {
		if out, err := exec.Command("modprobe", module).CombinedOutput(); err != nil {
			_, _ = fmt.Printf("modprobe %s: %v: %s\n", module, err, out)
		}
	}
	cmd := exec.Command(filepath.Join(plan.Root, b.Package, plan.TestBinary), b.Args...)
	cmd.Dir = filepath.Join(plan.Root, b.Package)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	err := cmd.Run()
	code := 0
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		_, _ = fmt.Println("run", b.Package, err)
		code = -1
	}
	_, _ = fmt.Println(plan.Mark, plan.End, b.Package, code)
	sayDumps()
}

// sayDumps prints how failed tests explain themselves, which is shown with -v.
func sayDumps() {
	files, err := filepath.Glob(plan.Dump + "/*")
	if err != nil {
		return // the pattern is right
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		_, _ = fmt.Printf("DUMP %s %v\n%s\n", filepath.Base(name), err, text)
		_ = os.Remove(name)
	}
}
