// SPDX-License-Identifier: Apache-2.0

package testrig_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/zipline-cni/zipline/internal/testrig"
)

func TestNodeSeesItsOwnDevicesAndMounts(t *testing.T) {
	w := testrig.New(t, testrig.Options{})
	if got := w.Node.MustRun(t, "ls", "/sys/class/net"); got != "lo\n"+testrig.Uplink {
		t.Errorf("devices in /sys/class/net of the node: %q", got)
	}
	for _, dir := range []string{"/sys/fs/bpf", "/var/lib/cni"} {
		if got := w.Node.MustRun(t, "find", dir, "-mindepth", "1", "-not", "-name", "*.debug"); got != "" {
			t.Errorf("%s of a new node has %q; want it empty", dir, got)
		}
	}
	w.Node.MustRun(t, "touch", "/run/of-the-node")
	if _, err := os.Stat("/run/of-the-node"); err == nil {
		t.Error("a file in the node's /run shows on the machine")
	}
}

func TestNodeReachesTheOutsideByItsDefaultRoute(t *testing.T) {
	w := testrig.New(t, testrig.Options{})
	for _, dst := range []string{testrig.InternetIPv4.String(), testrig.InternetIPv6.String()} {
		if _, err := w.Node.Run("ping", "-n", "-c1", "-W1", dst); err != nil {
			t.Error(err)
		}
	}
}

func TestContainerPathIsVisibleInTheNodeOnly(t *testing.T) {
	w := testrig.New(t, testrig.Options{})
	c := w.Node.NewContainer(t, "c1")
	inside := c.MustRun(t, "readlink", "/proc/self/ns/net")
	if got := w.Node.MustRun(t, "nsenter", "--net="+c.Path, "readlink", "/proc/self/ns/net"); got != inside {
		t.Errorf("path %s leads to %s; want %s", c.Path, got, inside)
	}
	if _, err := os.Stat(c.Path); err == nil {
		t.Errorf("%s exists on the machine", c.Path)
	}
	c.RemovePath(t)
	if got := w.Node.MustRun(t, "ls", testrig.NetnsDir); strings.Contains(got, "c1") {
		t.Errorf("path is left after RemovePath: %q", got)
	}
}

func TestDevicesOfAKilledContainerVanish(t *testing.T) {
	w := testrig.New(t, testrig.Options{})
	for range 20 {
		c := w.Node.NewContainer(t, "c1")
		w.Node.MustRun(t, "ip", "link", "add", "host0", "type", "veth", "peer", "name", "eth0", "netns", c.Path)
		c.Kill(t)
		deadline := time.Now().Add(testrig.Timeout)
		for strings.Contains(w.Node.MustRun(t, "ip", "-br", "link"), "host0") {
			if time.Now().After(deadline) {
				t.Fatal("the device of a killed container is still there")
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
}
