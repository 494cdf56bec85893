// SPDX-License-Identifier: Apache-2.0

package ipam

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

const sampleResolvConf = `# comment
; comment
nameserver 192.0.2.0
  nameserver	2001:db8::53 # a comment is not understood here
nameserver
search example.com example.net
domain one.example
domain two.example ignored
search third.example
options four ndots:5
sortlist 10.0.0.0
`

func TestResolvConfIsReadAsHostLocalReadsIt(t *testing.T) {
	got, err := parseResolvConf(strings.NewReader(sampleResolvConf))
	want := DNS{
		Nameservers: []string{"192.0.2.0", "2001:db8::53"}, Domain: "two.example",
		Search: []string{"example.com", "example.net", "third.example"}, Options: []string{"four", "ndots:5"},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
}

func TestResolvConfThatCannotBeReadIsAnIOError(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	_, err := readResolvConf(missing)
	var ioErr *IOError
	if !errors.As(err, &ioErr) || ioErr.Path != missing || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want an IOError that names %s", err, missing)
	}
	long := filepath.Join(t.TempDir(), "long")
	if err := os.WriteFile(long, []byte("search "+strings.Repeat("a", 1<<17)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readResolvConf(long); !errors.As(err, &ioErr) || ioErr.Path != long {
		t.Errorf("got %v, want an IOError that names %s", err, long)
	}
}

func FuzzParseResolvConf(f *testing.F) {
	f.Add(sampleResolvConf)
	f.Fuzz(func(t *testing.T, content string) {
		dns, err := parseResolvConf(strings.NewReader(content))
		if err != nil {
			return
		}
		for _, words := range [][]string{dns.Nameservers, dns.Search, dns.Options} {
			for _, word := range words {
				if word == "" || strings.TrimSpace(word) != word {
					t.Fatalf("word %q in %+v", word, dns)
				}
			}
		}
	})
}
