// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf/btf"
)

func spec(tb testing.TB) *btf.Spec {
	tb.Helper()
	collection, err := LoadZipline()
	if err != nil {
		tb.Fatal(err)
	}
	return collection.Types
}

func TestEveryReasonHasANameOfItsOwn(t *testing.T) {
	var enum *btf.Enum
	if err := spec(t).TypeByName("reason", &enum); err != nil {
		t.Fatal(err)
	}
	markers := map[string]bool{"REASON_DROP_FIRST": true, "REASON_NEXT_FIRST": true}
	byName := map[string]string{}
	numbers := map[Reason]bool{}
	for _, v := range enum.Values {
		if markers[v.Name] {
			continue
		}
		r := Reason(v.Value)
		numbers[r] = true
		name, ok := reasonNames[r]
		if !ok {
			t.Errorf("%s has no name in reason.go", v.Name)
		}
		if byName[name] != "" {
			t.Errorf("%s and %s are both %q", v.Name, byName[name], name)
		}
		byName[name] = v.Name
		if r == 0 || r >= Reasons {
			t.Errorf("%s is %d, which has no counter", v.Name, r)
		}
	}
	for r, name := range reasonNames {
		if !numbers[r] {
			t.Errorf("%q (%d) is no reason of lib/reason.h", name, uint32(r))
		}
	}
	if Reason(200).String() != "reason 200" {
		t.Errorf("an unknown reason reads %q", Reason(200))
	}
}

func TestReasonsImplyTheirVerdict(t *testing.T) {
	for reason, want := range map[Reason]string{
		ZiplineReasonREASON_DIRECT:         "redirect",
		ZiplineReasonREASON_ND_REPLY:       "redirect",
		ZiplineReasonREASON_DROP_SOURCE:    "drop",
		ZiplineReasonREASON_DROP_VLAN:      "drop",
		ZiplineReasonREASON_NEXT_ETHERTYPE: "next",
		ZiplineReasonREASON_NEXT_CONNTRACK: "next",
	} {
		if have := reason.Verdict().String(); have != want {
			t.Errorf("%q is a %s, want %s", reason, have, want)
		}
	}
}

func TestHooksAreThoseOfTheObject(t *testing.T) {
	collection, err := LoadZipline()
	if err != nil {
		t.Fatal(err)
	}
	if n := collection.Maps[ZiplineMapCounters].MaxEntries; n != NetworkSlots*Hooks*Reasons {
		t.Errorf("counters has %d rows, Go expects %d", n, NetworkSlots*Hooks*Reasons)
	}
	if n := collection.Maps[ZiplineMapPaths].MaxEntries; n != PathSlots {
		t.Errorf("paths has %d rows, Go expects %d", n, PathSlots)
	}
	if n := collection.Maps[ZiplineMapNetworks].MaxEntries; n != NetworkSlots-1 {
		t.Errorf("networks has room for %d, Go expects %d, since slot 0 is nobody's", n, NetworkSlots-1)
	}
	for hook, want := range map[Hook]string{HookEndpoint: "from_endpoint", HookUplink: "from_uplink", HookDevice: "to_device"} {
		if hook.String() != want || collection.Programs[want] == nil {
			t.Errorf("hook %d is %s, want %s, a program of the object", hook, hook, want)
		}
	}
}

func TestDigestIsThatOfTheObject(t *testing.T) {
	sum := sha256.Sum256(_ZiplineBytes)
	if have := hex.EncodeToString(sum[:16]); have != Digest() {
		t.Errorf("digest is %s, the object's is %s: run go generate ./bpf", Digest(), have)
	}
}

func TestHeadersAreShort(t *testing.T) {
	headers, err := filepath.Glob("lib/*.h")
	if err != nil || len(headers) == 0 {
		t.Fatalf("found %d headers: %v", len(headers), err)
	}
	for _, path := range headers {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if n := bytes.Count(data, []byte("\n")); n >= 250 {
			t.Errorf("%s has %d lines, the limit is 250", path, n)
		}
	}
}
