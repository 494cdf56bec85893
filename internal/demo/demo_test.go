// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/zipline-cni/zipline/internal/testutil"
	"github.com/zipline-cni/zipline/loader"
)

// runDemo runs the demo and returns its screen.
func runDemo(t *testing.T, h hooks) (string, error) {
	t.Helper()
	testutil.RequireRoot(t)
	for _, program := range []string{"ip", "nft", "iptables", "conntrack", "ping"} {
		testutil.RequireProgram(t, program)
	}
	var stdout, stderr bytes.Buffer
	err := run(t.Context(), &stdout, &stderr, h)
	return stdout.String(), err
}

func TestDemoIsTrueAndFitsAScreen(t *testing.T) {
	screen, err := runDemo(t, hooks{})
	if err != nil {
		t.Fatalf("%v\n%s", err, screen)
	}
	if strings.Contains(screen, "✗") || !strings.Contains(screen, "All of it is true.") {
		t.Errorf("screen does not say that all is true:\n%s", screen)
	}
	lines := strings.Split(strings.TrimSuffix(screen, "\n"), "\n")
	if len(lines) > 45 {
		t.Errorf("screen has %d lines, more than 45", len(lines))
	}
	for _, line := range lines {
		if n := utf8.RuneCountInString(line); n > 100 {
			t.Errorf("line has %d columns, more than 100: %s", n, line)
		}
		if line != strings.TrimRight(line, " ") {
			t.Errorf("line ends with blanks: %q", line)
		}
	}
}

func TestDemoNoticesWhatIsNotTrue(t *testing.T) {
	for _, c := range []struct {
		name string
		h    hooks
		want string // in the error
	}{
		{"a container that is cut off", hooks{attached: func(d *demo) {
			d.pods[1].MustRun(d.tb, "ip", "addr", "flush", "dev", "eth0")
		}}, "a reaches b"},
		{"traffic that the stack carries", hooks{attached: func(d *demo) {
			slowDown(d, d.pods[1])
		}}, "a -> b, 4 MB over TCP and back: 0 packets redirected"},
		{"a source that is not the node's", hooks{attached: func(d *demo) {
			d.world.Node.MustRunInput(d.tb, "add table ip other\nadd chain ip other post { type nat hook postrouting priority 90; }\n"+
				"add rule ip other post ip saddr 10.62.0.2 snat to 192.0.2.77\n", "nft", "-f", "-")
			d.world.Outside.MustRun(d.tb, "ip", "route", "add", "192.0.2.77", "via", "192.0.2.1")
		}}, "outside sees 192.0.2.77 of container a"},
		{"a lease that stays", hooks{detached: func(d *demo) {
			d.world.Node.MustRunInput(d.tb, "a\r\neth0", "sh", "-c", "cat > /var/lib/cni/networks/"+d.list.Name+"/10.62.0.2")
		}}, "leases: 3 before DEL, 1 after"},
		{"a device that stays", hooks{detached: func(d *demo) {
			d.world.Node.MustRun(d.tb, "ip", "link", "add", d.pods[2].device, "type", "veth")
		}}, "devices: 3 before DEL, 1 after"},
	} {
		t.Run(c.name, func(t *testing.T) {
			screen, err := runDemo(t, c.h)
			if !errors.Is(err, errUntrue) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("demo ended with %v; want %q\n%s", err, c.want, screen)
			}
			if !strings.Contains(screen, "✗") || strings.Contains(screen, "All of it is true") {
				t.Errorf("screen hides it:\n%s", screen)
			}
		})
	}
}

// slowDown takes the right to be reached past the stack from a container.
func slowDown(d *demo, p *pod) {
	err := d.world.Node.Do(func() (err error) {
		node, err := loader.Find(0)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, node.Close()) }()
		endpoint, err := node.Lookup(p.address.Addr())
		if err != nil {
			return err
		}
		endpoint.Direct, endpoint.Tracked = false, false
		return node.Upsert(p.address.Addr(), endpoint)
	})
	if err != nil {
		d.tb.Fatal(err)
	}
}

func TestInterruptedDemoLeavesNothing(t *testing.T) {
	testutil.RequireRoot(t)
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	ctx, cancel := context.WithCancel(t.Context())
	start := time.Now()
	var stdout, stderr bytes.Buffer
	err := run(ctx, &stdout, &stderr, hooks{attached: func(*demo) {
		cancel()
		select {}
	}})
	if !errors.Is(err, context.Canceled) || time.Since(start) > time.Minute {
		t.Errorf("interrupted demo ended with %v after %v", err, time.Since(start))
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) > 0 {
		t.Errorf("files are left: %q", left)
	}
	if links, err := os.ReadFile("/proc/net/dev"); err != nil || bytes.Contains(links, []byte(" zl")) {
		t.Errorf("devices are left on the machine: %v\n%s", err, links)
	}
}

func TestForwardedPacketsAreFoundByName(t *testing.T) {
	const text = "Ip: Forwarding DefaultTTL ForwDatagrams InUnknownProtos\nIp: 1 64 4711 0\nIcmp: InMsgs\nIcmp: 1\n"
	if n, err := parseForwarded(text); n != 4711 || err != nil {
		t.Errorf("%d, %v; want 4711", n, err)
	}
	if _, err := parseForwarded("Icmp: InMsgs\nIcmp: 1\n"); err == nil {
		t.Error("statistics without the field were accepted")
	}
}

func TestAddressIsFoundAsAWhole(t *testing.T) {
	for text, want := range map[string]bool{
		"route 10.62.0.2 dev": true, "src=10.62.0.2": true, "10.62.0.20": false, "10.62.0.20 10.62.0.2": true, "": false,
	} {
		if got := containsAddress(text, "10.62.0.2"); got != want {
			t.Errorf("%q holds the address: %v; want %v", text, got, want)
		}
	}
}
