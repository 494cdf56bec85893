// SPDX-License-Identifier: Apache-2.0

package testrig

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

var pid = os.Getpid()

// NetnsDir is the directory of the container namespaces in the node's mounts.
const NetnsDir = "/run/netns"

// Node is the machine that containers are attached to.
type Node struct {
	Namespace
	pluginPath string // CNI_PATH
	tb         testing.TB
}

// Container is a network namespace to attach. It is reachable as Path in the
// node's mounts.
type Container struct {
	Namespace
	// ID is what CNI_CONTAINERID says.
	ID string
	// Path is what CNI_NETNS says.
	Path string
	node *Node
}

func newNode(tb testing.TB, opts Options) *Node {
	tb.Helper()
	keepExpedited(tb)
	ns, err := newNamespace("node", unix.CLONE_NEWNS, mountPrivate)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(ns.Close)
	return &Node{Namespace: *ns, pluginPath: strings.Join(opts.PluginPath, ":"), tb: tb}
}

// expedited is the machine's switch for grace periods.
const expedited = "/sys/kernel/rcu_expedited"

// expeditedNote says that nodes are there, and that the switch was off before. A
// process that is killed leaves it behind, for the next one to know.
const expeditedNote = "/run/zipline-testrig"

// wasNormal says whether the switch was off when this process made its first node,
// or would have been but for a process of ours that was killed.
var wasNormal = sync.OnceValue(func() bool { return isNormal(expedited, expeditedNote) })

func isNormal(knob, note string) bool {
	value, err := os.ReadFile(knob)
	if err == nil && strings.TrimSpace(string(value)) == "0" {
		return true
	}
	_, noteErr := os.Stat(note)
	return err == nil && noteErr == nil
}

// expediting counts the nodes of this process.
var expediting struct {
	sync.Mutex
	nodes int
}

// keepExpedited switches it off after the test: the note by which a killed
// plugin asks the next one to do so lies in the node's own /run and goes with it.
// All of it is best effort: a switch that stays on only costs time.
func keepExpedited(tb testing.TB) {
	if !wasNormal() {
		return
	}
	expediting.Lock()
	defer expediting.Unlock()
	if expediting.nodes++; expediting.nodes == 1 {
		_ = os.WriteFile(expeditedNote, nil, 0o600)
	}
	tb.Cleanup(func() {
		expediting.Lock()
		defer expediting.Unlock()
		_ = os.WriteFile(expedited, []byte("0"), 0)
		if expediting.nodes--; expediting.nodes == 0 {
			_ = os.Remove(expeditedNote)
		}
	})
}

// mountPrivate gives the calling thread's mount namespace the directories of a
// machine that has just booted.
func mountPrivate() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	// A sysfs shows the devices of the network namespace it was mounted in.
	if err := unix.Mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /sys: %w", err)
	}
	if err := unix.Mount("bpf", "/sys/fs/bpf", "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
		return fmt.Errorf("mount /sys/fs/bpf: %w", err)
	}
	for _, dir := range []string{"/run", "/var/lib/cni", "/etc/cni"} {
		if err := mountEmpty(dir); err != nil {
			return err
		}
	}
	return os.MkdirAll(NetnsDir, 0o755)
}

// mountEmpty puts an empty directory of this name in the mount namespace. Where
// the machine has none to mount on, its parent becomes an empty one.
func mountEmpty(dir string) error {
	target := dir
	for {
		err := unix.Mount("tmpfs", target, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755")
		if err == nil {
			return os.MkdirAll(dir, 0o755)
		}
		if !errors.Is(err, unix.ENOENT) || filepath.Dir(target) == "/etc" {
			return ignoreMissing(err, target)
		}
		target = filepath.Dir(target)
	}
}

// ignoreMissing accepts that /etc has no such directory: an empty /etc would
// hide the machine's configuration from every program of a test.
func ignoreMissing(err error, target string) error {
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return fmt.Errorf("mount %s: %w", target, err)
}

// setDefaults brings the sysctls of the new namespace into the state of a
// machine after boot: some are inherited from the machine that runs the test.
func (n *Node) setDefaults(tb testing.TB, opts Options) {
	tb.Helper()
	n.SetSysctl(tb, "ipv4/ip_forward", "0")
	n.SetSysctl(tb, "ipv6/conf/all/forwarding", "0")
	reversePath, netfilter, noIPv6 := "0", "0", "0"
	if opts.StrictReversePath {
		reversePath = "1"
	}
	if opts.BridgeNetfilter {
		netfilter = "1"
	}
	if opts.NoIPv6 {
		noIPv6 = "1"
	}
	for _, scope := range []string{"all", "default"} {
		n.SetSysctl(tb, "ipv4/conf/"+scope+"/rp_filter", reversePath)
		n.SetSysctl(tb, "ipv6/conf/"+scope+"/disable_ipv6", noIPv6)
	}
	for _, family := range []string{"iptables", "ip6tables"} {
		key := "bridge/bridge-nf-call-" + family
		if _, ok := n.Sysctl(tb, key); ok {
			n.SetSysctl(tb, key, netfilter)
		} else if opts.BridgeNetfilter {
			tb.Fatalf("kernel without br_netfilter: no sysctl %s", key)
		}
	}
}

// NewContainer makes a container's network namespace, with lo up as runtimes
// leave it, and binds it to NetnsDir/id. It ends with the test.
func (n *Node) NewContainer(tb testing.TB, id string) *Container {
	tb.Helper()
	c := &Container{ID: id, Path: filepath.Join(NetnsDir, id), node: n}
	ns, err := newNamespace(id, 0, func() error { return nil })
	if err != nil {
		tb.Fatal(err)
	}
	c.Namespace = *ns
	tb.Cleanup(c.Close)
	err = n.Do(func() error {
		file, err := os.OpenFile(c.Path, os.O_CREATE|os.O_EXCL, 0o444)
		if err != nil {
			return err
		}
		_ = file.Close()
		if err := unix.Mount(c.path(), c.Path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind namespace to %s: %w", c.Path, err)
		}
		return nil
	})
	if err != nil {
		tb.Fatalf("make container %s: %v", id, err)
	}
	c.MustRun(tb, "ip", "link", "set", "lo", "up")
	return c
}

// RemovePath takes the container's namespace away from its path, as a runtime
// does that calls DEL without one.
func (c *Container) RemovePath(tb testing.TB) {
	tb.Helper()
	err := c.node.Do(func() error {
		return errors.Join(unix.Unmount(c.Path, unix.MNT_DETACH), os.Remove(c.Path))
	})
	if err != nil {
		tb.Fatalf("remove path of %s: %v", c.ID, err)
	}
}

// Kill removes the path and lets go of the namespace: the kernel takes its
// devices down as at the death of a container.
func (c *Container) Kill(tb testing.TB) {
	tb.Helper()
	c.RemovePath(tb)
	c.Close()
}
