// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// writeCached writes a file as libcni does.
func writeCached(t *testing.T, dir, id, config string, args map[string]any) {
	t.Helper()
	var result map[string]any
	err := json.Unmarshal([]byte(`{"cniVersion":"1.1.0","interfaces":[{"name":"zl+"},{"name":"zl"},
		{"name":"eth0","mac":"02:00:00:00:00:09","sandbox":"/run/netns/`+id+`"}],
		"ips":[{"interface":2,"address":"10.1.0.9/24","gateway":"10.1.0.1"}]}`), &result)
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(map[string]any{
		"kind": cacheKind, "containerId": id, "config": []byte(config), "ifName": "eth0", "networkName": "net",
		"netns": "/run/netns/" + id, "cniArgs": [][2]string{{"IgnoreUnknown", "1"}}, "capabilityArgs": args, "result": result,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "results", "net-"+id+"-eth0"), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestCachedSpecsAreThoseOfZiplineAlone(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "results"), 0o700); err != nil {
		t.Fatal(err)
	}
	const ours = `{"type":"zipline","bridge":"seg7","slowPathMark":"0x10","ipMasq":true,"capabilities":{"mac":true},"ipam":{"type":"host-local"}}`
	writeCached(t, dir, "list", `{"cniVersion":"1.1.0","name":"net","plugins":[{"type":"firewall"},`+ours+`,{"type":"tuning"}]}`, map[string]any{"mac": "02:00:00:00:00:09"})
	writeCached(t, dir, "single", strings.Replace(ours, `{"type"`, `{"cniVersion":"1.0.0","name":"net","type"`, 1), nil)
	writeCached(t, dir, "theirs", `{"cniVersion":"1.1.0","name":"net","plugins":[{"type":"bridge"}]}`, nil)
	for name, text := range map[string]string{"broken": "{", "other": `{"kind":"another"}`} {
		if err := os.WriteFile(filepath.Join(dir, "results", name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	specs, err := CachedSpecs(dir)
	if err == nil || !strings.Contains(err.Error(), "broken") || strings.Contains(err.Error(), "theirs") {
		t.Errorf("error %v, want one that names only the broken file", err)
	}
	if len(specs) != 2 {
		t.Fatalf("%d specs, want that of the list and the single one", len(specs))
	}
	for device, s := range specs {
		if s.Device() != device || s.Segment != "seg7" || s.SlowPathMark != 0x10 || s.Masquerade == nil ||
			s.MAC.String() != "02:00:00:00:00:09" || len(s.Addresses) != 1 || s.Addresses[0].Prefix.String() != "10.1.0.9/24" {
			t.Errorf("spec %+v", s)
		}
	}
	if specs, err := CachedSpecs(filepath.Join(dir, "nowhere")); err != nil || specs != nil {
		t.Errorf("without a cache: %v, %v", specs, err)
	}
}
