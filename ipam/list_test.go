// SPDX-License-Identifier: Apache-2.0

package ipam

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func TestListTellsWhatLiesInADirectory(t *testing.T) {
	started := time.Now().Add(-time.Hour).Truncate(time.Second)
	now := boot{id: "this", started: started}
	for _, c := range []struct {
		name  string
		files map[string]string
		old   []string // modified before the boot
		ours  bool
		want  []string // address, owner and "earlier"
	}{
		{name: "an empty directory"},
		{
			name:  "host-local's own",
			files: map[string]string{"10.0.0.2": "one\r\neth0", "fd00::2": "one\r\neth0", "last_reserved_ip.0": "10.0.0.2", "lock": ""},
			want:  []string{"10.0.0.2 one/eth0", "fd00::2 one/eth0"},
		},
		{
			name:  "the older format, and a file that was being made",
			files: map[string]string{"10.0.0.3": "two", "10.0.0.4": ""},
			want:  []string{"10.0.0.3 two"},
		},
		{
			name:  "addresses in the order of numbers",
			files: map[string]string{"10.0.0.10": "a\r\neth0", "10.0.0.9": "b\r\neth0"},
			want:  []string{"10.0.0.9 b/eth0", "10.0.0.10 a/eth0"},
		},
		{
			name:  "leases of an earlier boot",
			files: map[string]string{"10.0.0.2": "old\r\neth0", "10.0.0.3": "new\r\neth0"},
			old:   []string{"10.0.0.2"},
			want:  []string{"10.0.0.2 old/eth0 earlier", "10.0.0.3 new/eth0"},
		},
		{
			name:  "of this boot, as a command of this boot found, whatever the clock says",
			files: map[string]string{"10.0.0.2": "old\r\neth0", ".zipline/state": "zipline-ipam 1\nboot this\nstamp 1\n"},
			old:   []string{"10.0.0.2"}, ours: true,
			want: []string{"10.0.0.2 old/eth0"},
		},
		{
			name:  "the state of an earlier boot",
			files: map[string]string{"10.0.0.2": "old\r\neth0", ".zipline/state": "zipline-ipam 1\nboot other\nstamp 1\n"},
			old:   []string{"10.0.0.2"}, ours: true,
			want: []string{"10.0.0.2 old/eth0 earlier"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "net")
			if err := os.MkdirAll(filepath.Join(dir), 0o755); err != nil {
				t.Fatal(err)
			}
			for name, content := range c.files {
				path := filepath.Join(dir, name)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(content), fileMode); err != nil {
					t.Fatal(err)
				}
			}
			for _, name := range c.old {
				if err := os.Chtimes(filepath.Join(dir, name), time.Time{}, started.Add(-time.Minute)); err != nil {
					t.Fatal(err)
				}
			}
			before := tree(t, dir)
			st := &store{dir: dir, boot: func() boot { return now }, step: func(change string) { t.Errorf("the listing changes something: %s", change) }}
			listing, err := st.list()
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, l := range listing.Leases {
				text := l.Address.String() + " " + l.Owner.String()
				if l.Earlier {
					text += " earlier"
				}
				got = append(got, text)
			}
			if !slices.Equal(got, c.want) || listing.Ours != c.ours || listing.Network != "net" {
				t.Errorf("network %q, ours %v, leases %q; want %q", listing.Network, listing.Ours, got, c.want)
			}
			if after := tree(t, dir); !slices.Equal(before, after) {
				t.Errorf("before %q, after %q", before, after)
			}
		})
	}
}

// tree lists the files below a directory with their times.
func tree(t *testing.T, dir string) (lines []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil {
			lines = append(lines, path+" "+info.ModTime().Format(time.RFC3339Nano))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

func TestListAgreesWithThePool(t *testing.T) {
	pool := newPoolWith(t, ipamConfig(`{"subnet":"10.0.0.0/24"}`), "")
	pool.store.dir = filepath.Join(t.TempDir(), "net")
	owner := Owner{"container", "eth0"}
	result, err := pool.Allocate(owner)
	if err != nil {
		t.Fatal(err)
	}
	listing, err := List(pool.Dir())
	if err != nil {
		t.Fatal(err)
	}
	want := Lease{result.Addresses[0].Prefix.Addr(), owner}
	if !listing.Ours || len(listing.Leases) != 1 || listing.Leases[0].Lease != want || listing.Leases[0].Earlier {
		t.Errorf("%+v, want %v", listing, want)
	}
	names, err := Networks(filepath.Dir(pool.Dir()))
	if err != nil || !slices.Equal(names, []string{"net"}) {
		t.Errorf("networks %q, %v", names, err)
	}
	if names, err := Networks(filepath.Join(t.TempDir(), "none")); err != nil || len(names) > 0 {
		t.Errorf("networks of a directory that is not there: %q, %v", names, err)
	}
	if _, err := List(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a directory that is not there has leases")
	}
}
