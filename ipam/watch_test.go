// SPDX-License-Identifier: Apache-2.0

package ipam

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func (c Change) text() string {
	switch {
	case c.Lost:
		return "lost"
	case c.Released:
		return fmt.Sprintf("- %s %s %s", c.Network, c.Address, c.Owner)
	}
	return fmt.Sprintf("+ %s %s %s", c.Network, c.Address, c.Owner)
}

func mustDo(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestWatch has leases made by this package and as host-local makes them, below a
// directory that does not exist at first.
func TestWatch(t *testing.T) {
	base := t.TempDir()
	dataDir := filepath.Join(base, "cni", "networks")
	ctx, stop := context.WithCancel(t.Context())
	changes, ready, ended := make(chan Change, 100), make(chan bool), make(chan error, 1)
	go func() { ended <- Watch(ctx, dataDir, func() { close(ready) }, func(c Change) { changes <- c }) }()
	<-ready
	await := func(wants ...string) {
		t.Helper()
		for _, want := range wants {
			select {
			case c := <-changes:
				if c.text() != want || time.Since(c.Time) > time.Minute {
					t.Fatalf("change %q at %s, want %q", c.text(), c.Time, want)
				}
			case <-time.After(10 * time.Second):
				t.Fatalf("no change; want %q", want)
			}
		}
	}
	pool, err := NewPool([]byte(fmt.Sprintf(`{"name":"net","ipam":{"type":"host-local","dataDir":%q,"subnet":"10.1.0.0/24"}}`, dataDir)), "")
	mustDo(t, err)
	for _, id := range []string{"a", "b"} {
		_, err := pool.Allocate(Owner{id, "eth0"})
		mustDo(t, err)
	}
	await("+ net 10.1.0.2 a/eth0", "+ net 10.1.0.3 b/eth0")
	_, err = pool.Release(Owner{"a", "eth0"})
	mustDo(t, err)
	await("- net 10.1.0.2 a/eth0")
	// host-local creates a file, and writes it afterwards.
	file := filepath.Join(dataDir, "net", "10.1.0.9")
	f, err := os.Create(file)
	mustDo(t, err)
	time.Sleep(50 * time.Millisecond)
	_, err = f.WriteString("c\r\neth0")
	mustDo(t, err)
	mustDo(t, f.Close())
	await("+ net 10.1.0.9 c/eth0")
	mustDo(t, os.WriteFile(filepath.Join(dataDir, "net", "last_reserved_ip.0"), []byte("10.1.0.9"), 0o600))
	mustDo(t, os.WriteFile(file, []byte("d\r\neth0"), 0o600))
	await("- net 10.1.0.9 c/eth0", "+ net 10.1.0.9 d/eth0")
	// Another network, and one that goes.
	mustDo(t, os.MkdirAll(filepath.Join(dataDir, "other"), 0o755))
	mustDo(t, os.WriteFile(filepath.Join(dataDir, "other", "fd00::2"), []byte("e\r\neth1"), 0o600))
	await("+ other fd00::2 e/eth1")
	mustDo(t, os.RemoveAll(filepath.Join(dataDir, "other")))
	await("- other fd00::2 e/eth1")
	stop()
	mustDo(t, <-ended)
	if len(changes) > 0 {
		t.Errorf("one more change: %+v", <-changes)
	}
}

// TestWatchAfterAnOverflow has changes that were never announced.
func TestWatchAfterAnOverflow(t *testing.T) {
	dataDir := t.TempDir()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	mustDo(t, err)
	defer unix.Close(fd)
	var told []string
	w := &leaseWatcher{
		dataDir: dataDir, fd: fd, tell: func(c Change) { told = append(told, c.text()) },
		dirs: map[int32]string{}, leases: map[string]map[netip.Addr]Owner{},
	}
	mustDo(t, os.Mkdir(filepath.Join(dataDir, "net"), 0o755))
	mustDo(t, os.WriteFile(filepath.Join(dataDir, "net", "10.1.0.2"), []byte("a\r\neth0"), 0o600))
	mustDo(t, w.arm())
	mustDo(t, os.Remove(filepath.Join(dataDir, "net", "10.1.0.2")))
	mustDo(t, os.WriteFile(filepath.Join(dataDir, "net", "10.1.0.3"), []byte("b\r\neth0"), 0o600))
	overflow := make([]byte, unix.SizeofInotifyEvent)
	for i := range 4 {
		overflow[i] = 0xff // no watch
	}
	overflow[5] = unix.IN_Q_OVERFLOW >> 8
	mustDo(t, w.handle(overflow))
	want := []string{"+ net 10.1.0.2 a/eth0", "lost", "- net 10.1.0.2 a/eth0", "+ net 10.1.0.3 b/eth0"}
	if fmt.Sprint(told) != fmt.Sprint(want) {
		t.Errorf("told %q, want %q", told, want)
	}
}
