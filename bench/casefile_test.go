// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/zipline-cni/zipline/internal/testutil"
)

// validCase is the text of a case with nothing left out.
const validCase = `{"name": "my own", "title": "a plugin of mine", "kind": "plugin",
	"network": {"cniVersion": "1.0.0", "name": "n", "plugins": [
		{"type": "mine", "ipam": {"type": "host-local"}},
		{"type": "portmap", "capabilities": {"portMappings": true}}]},
	"pluginPath": ["/opt/mine"], "bridgeNetfilter": true, "carried": "ebpf", "growth": true,
	"paths": ["same node", "host port"], "workloads": ["TCP_RR"], "connections": [1, 32]}`

func TestCaseIsReadWhole(t *testing.T) {
	c, err := ParseCase([]byte(validCase))
	if err != nil {
		t.Fatal(err)
	}
	network := c.Network
	c.Network = nil
	want := Case{
		Name: "my own", Title: "a plugin of mine", Kind: KindPlugin, PluginPath: []string{"/opt/mine"}, BridgeNetfilter: true,
		Carried: CarrierEBPF, Growth: true, Paths: []Path{Local, HostPort}, Workloads: []Workload{TCPRR}, Connections: []int{1, 32},
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("case %+v\nwant %+v", c, want)
	}
	c.Network = network
	programs, err := c.programs()
	if err != nil || !slices.Equal(programs, []string{"mine", "host-local", "portmap"}) {
		t.Errorf("programs %q, %v", programs, err)
	}
	if maps, err := c.mapsPorts(); err != nil || !maps {
		t.Errorf("network maps no ports: %v", err)
	}
	for _, other := range []struct {
		cell
		part bool
	}{
		{cell{Local, TCPRR, 1, 1}, true},
		{cell{HostPort, TCPRR, 32, 2}, true},
		{cell{Outside, TCPRR, 1, 1}, false},
		{cell{Local, UDPRR, 1, 1}, false},
		{cell{Local, TCPRR, 8, 1}, false},
	} {
		if c.takesPart(other.cell) != other.part {
			t.Errorf("part in %s: %v", other.cell, !other.part)
		}
	}
	if !(Case{}).takesPart(cell{Service, UDP64, 7, 1}) {
		t.Error("a case without lists does not take part in all")
	}
}

func TestCaseErrorsNameTheKey(t *testing.T) {
	for _, c := range []struct{ name, from, to, want string }{
		{"no object", validCase, `[]`, "not a JSON object"},
		{"nothing", validCase, ``, "parse case: EOF"},
		{"half of it", `[1, 32]}`, `[1, 32]`, "parse case"},
		{"text behind", `[1, 32]}`, `[1, 32]} {}`, "text behind the object"},
		{"an unknown key", `"title"`, `"titel"`, `unknown key "titel"`},
		{"another case of letters", `"title"`, `"Title"`, `unknown key "Title"`},
		{"a key twice", `"kind": "plugin"`, `"kind": "wire", "kind": "plugin"`, `unknown key "kind", or twice`},
		{"a string for a switch", `"growth": true`, `"growth": "yes"`, `key "growth"`},
		{"a number for a name", `"my own"`, `7`, `key "name"`},
		{"no name", `"name": "my own", `, ``, `key "name"`},
		{"a name with a comma", `my own`, `my,own`, `key "name": "my,own"`},
		{"a name that is too long", `my own`, strings.Repeat("x", 25), `key "name"`},
		{"a name with a space behind", `my own`, `my `, `key "name"`},
		{"no title", `"title": "a plugin of mine", `, ``, `key "title"`},
		{"two lines of title", `a plugin`, `a\nplugin`, `key "title"`},
		{"another kind", `"kind": "plugin"`, `"kind": "router"`, `key "kind": "router" is not one of`},
		{"no kind", `"kind": "plugin",`, ``, `key "kind"`},
		{"a wire with a network", `"kind": "plugin"`, `"kind": "wire"`, `only for kind "plugin"`},
		{"no network", `"network"`, `"paths": [], "x"`, `unknown key "x"`},
		{"a network without plugins", `"plugins"`, `"plugin"`, `key "network"`},
		{"a plugin without a type", `{"type": "mine", `, `{`, `key "network"`},
		{"a network without a name", `"name": "n", `, ``, `key "network"`},
		{"a network of another version", `1.0.0`, `one`, `key "network"`},
		{"a relative path", `/opt/mine`, `opt/mine`, `key "pluginPath": "opt/mine"`},
		{"another carrier", `"ebpf"`, `"xdp"`, `key "carried": "xdp"`},
		{"another path", `"same node"`, `"local"`, `key "paths": "local"`},
		{"a path twice", `"host port"`, `"same node"`, `key "paths": "same node" is there twice`},
		{"another workload", `TCP_RR`, `tcp_rr`, `key "workloads": "tcp_rr"`},
		{"no connection", `[1, 32]`, `[0]`, `key "connections": 0`},
		{"half a connection", `[1, 32]`, `[1.5]`, `key "connections"`},
	} {
		text := strings.Replace(validCase, c.from, c.to, 1)
		if text == validCase {
			t.Errorf("%s: nothing is changed", c.name)
		}
		if _, err := ParseCase([]byte(text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", c.name, err, c.want)
		}
	}
	if _, err := ParseCase([]byte(`{"name": "x", "title": "x", "kind": "plugin"}`)); err == nil || !strings.Contains(err.Error(), `key "network": missing`) {
		t.Errorf("no network: %v", err)
	}
}

func TestDefaultCasesAreThoseOfTheComparison(t *testing.T) {
	cases, err := DefaultCases()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range cases {
		names = append(names, string(c.Name))
	}
	want := "loopback, wire, wire again, bridge, bridge-nf0, bridge-nft, ptp, kernel, direct, tracked, kernel big, direct big, tracked big"
	if got := strings.Join(names, ", "); got != want {
		t.Errorf("cases %s\nwant %s", got, want)
	}
}

func TestCasesAreAddedOnce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "own.json")
	if err := os.WriteFile(file, []byte(validCase), 0o644); err != nil {
		t.Fatal(err)
	}
	all, err := AddCases([]Case{{Name: Wire}}, file)
	if err != nil || len(all) != 2 || all[1].Name != "my own" {
		t.Errorf("cases %v, %v", all, err)
	}
	if _, err := AddCases(all, file); err == nil || !strings.Contains(err.Error(), `there is a case "my own" already`) || !strings.Contains(err.Error(), file) {
		t.Errorf("the same case twice: %v", err)
	}
	if _, err := AddCases(nil, file+".no"); err == nil {
		t.Error("a file that is not there is read")
	}
}

// What users read about the format has to name every key and value.
func TestCaseFormatIsDocumented(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(testutil.RepoRoot(t), "bench/cases/README.md"))
	if err != nil {
		t.Fatal(err)
	}
	words := []string{string(KindLoopback), string(KindWire), string(KindPlugin), string(CarrierKernel), string(CarrierEBPF), string(CarrierNeighbours)}
	for i := range reflect.TypeFor[Case]().NumField() {
		name, _, _ := strings.Cut(reflect.TypeFor[Case]().Field(i).Tag.Get("json"), ",")
		words = append(words, name)
	}
	for _, p := range Paths {
		words = append(words, string(p))
	}
	for _, w := range Workloads {
		words = append(words, string(w))
	}
	for _, word := range words {
		if !strings.Contains(string(text), "`"+word+"`") {
			t.Errorf("the description has no `%s`", word)
		}
	}
}

// A case that is read can be written and read again, as results are.
func FuzzParseCase(f *testing.F) {
	f.Add([]byte(validCase))
	f.Add([]byte(`{"name":"x","title":"x","kind":"wire"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := ParseCase(text)
		if err != nil {
			return
		}
		written, err := json.Marshal(c)
		if err != nil {
			t.Fatalf("write %+v: %v", c, err)
		}
		again, err := ParseCase(written)
		if err != nil {
			t.Fatalf("read %s again: %v", written, err)
		}
		if again.Name != c.Name || again.Kind != c.Kind || len(again.Paths) != len(c.Paths) {
			t.Errorf("case %+v became %+v", c, again)
		}
	})
}
