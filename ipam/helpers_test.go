// SPDX-License-Identifier: Apache-2.0

package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// newPool returns the pool of network "net" in dataDir with this ipam section,
// which must not be empty and gets dataDir added.
func newPool(tb testing.TB, dataDir, ipam string) *Pool {
	tb.Helper()
	return newPoolWith(tb, poolConfig(dataDir, ipam), "")
}

func newPoolWith(tb testing.TB, stdin, args string) *Pool {
	tb.Helper()
	p, err := NewPool([]byte(stdin), args)
	if err != nil {
		tb.Fatalf("pool of %s: %v", stdin, err)
	}
	return p
}

// poolConfig returns a whole configuration. extra are further keys of the
// network, each with its comma.
func poolConfig(dataDir, ipam string, extra ...string) string {
	return fmt.Sprintf(`{"cniVersion":"1.0.0","name":"net","type":"bridge",%s"ipam":{"type":"host-local","dataDir":%q,%s}`,
		strings.Join(extra, ""), dataDir, strings.TrimPrefix(ipam, "{"))
}

func owner(i int) Owner { return Owner{fmt.Sprintf("container-%d", i), "eth0"} }

// mustAllocate returns the addresses, joined by blanks.
func mustAllocate(tb testing.TB, p *Pool, o Owner) string {
	tb.Helper()
	result, err := p.Allocate(o)
	if err != nil {
		tb.Fatalf("allocate for %s: %v", o, err)
	}
	return addresses(result)
}

func addresses(r *Result) string {
	var parts []string
	for _, a := range r.Addresses {
		parts = append(parts, a.Prefix.Addr().String())
	}
	return strings.Join(parts, " ")
}

func mustRelease(tb testing.TB, p *Pool, o Owner) string {
	tb.Helper()
	addrs, err := p.Release(o)
	if err != nil {
		tb.Fatalf("release %s: %v", o, err)
	}
	return join(addrs)
}

func mustLeases(tb testing.TB, p *Pool, o Owner) string {
	tb.Helper()
	addrs, err := p.Leases(o)
	if err != nil {
		tb.Fatalf("leases of %s: %v", o, err)
	}
	return join(addrs)
}

func join(addrs []netip.Addr) string {
	var parts []string
	for _, a := range addrs {
		parts = append(parts, a.String())
	}
	return strings.Join(parts, " ")
}

// leaseFiles returns the directory's lease files with their content, and the
// last reserved addresses.
func leaseFiles(tb testing.TB, dir string) map[string]string {
	tb.Helper()
	files, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		tb.Fatal(err)
	}
	content := map[string]string{}
	for _, file := range files {
		if file.Name() == ownName || file.Name() == lockName {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, file.Name()))
		if err != nil {
			tb.Fatal(err)
		}
		content[file.Name()] = string(data)
	}
	return content
}

// links returns how many entries the index has.
func links(tb testing.TB, p *Pool) int {
	tb.Helper()
	files, err := os.ReadDir(p.store.owners())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		tb.Fatal(err)
	}
	return len(files)
}

// plant writes a lease file as another program would, aged by age.
func plant(tb testing.TB, p *Pool, addr, content string, age time.Duration) {
	tb.Helper()
	if err := os.MkdirAll(p.Dir(), 0o755); err != nil {
		tb.Fatal(err)
	}
	path := filepath.Join(p.Dir(), addr)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		tb.Fatal(err)
	}
	then := time.Now().Add(-age)
	if err := os.Chtimes(path, then, then); err != nil {
		tb.Fatal(err)
	}
}

func exists(tb testing.TB, p *Pool, name string) bool {
	tb.Helper()
	_, err := os.Lstat(filepath.Join(p.Dir(), name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		tb.Fatal(err)
	}
	return err == nil
}

// checkSound fails unless every lease file names an owner and the index has
// exactly the leases: no temporary file of a process that died either.
func checkSound(tb testing.TB, p *Pool) {
	tb.Helper()
	want := map[string]string{}
	for name, content := range leaseFiles(tb, p.Dir()) {
		if _, ok := leaseName(name); !ok {
			continue
		}
		o, ok := parseLease([]byte(content))
		if !ok {
			tb.Errorf("lease file %s has content %q", name, content)
		}
		want[name] = indexKey(o)
	}
	s := &session{store: p.store}
	entries, err := s.readIndex()
	if err != nil {
		tb.Fatal(err)
	}
	for _, entry := range entries {
		if want[entry.addr.String()] != entry.key {
			tb.Errorf("index entry %s leads to %s, which is not that owner's", entry.name, entry.addr)
		}
		delete(want, entry.addr.String())
	}
	for name := range want {
		tb.Errorf("lease %s is not in the index", name)
	}
}

func inodeOf(info os.FileInfo) uint64 { return info.Sys().(*syscall.Stat_t).Ino }
