// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"errors"
	"strings"
	"testing"
)

func TestCheckTableNeedsNoEndpoint(t *testing.T) {
	enterNetns(t)
	r := mustOpen(t)
	if err := r.CheckTable(); !errors.Is(err, ErrTableMissing) {
		t.Errorf("before the first Install: %v", err)
	}
	if err := r.Install(); err != nil {
		t.Fatal(err)
	}
	mustAdd(t, r, owner("zl0000000000001", "net"), Options{}, source("10.1.0.2/16"))
	if err := r.CheckTable(); err != nil {
		t.Errorf("after Install: %v", err)
	}
	// Elements are an endpoint's affair.
	nft(t, "flush", "set", "inet", "zipline", "source4")
	if err := r.CheckTable(); err != nil {
		t.Errorf("without elements: %v", err)
	}
	nft(t, "flush", "chain", "inet", "zipline", "postrouting")
	nft(t, "add", "chain", "inet", "zipline", "mine")
	err := r.CheckTable()
	var wrong *CheckError
	if !errors.As(err, &wrong) || errors.Is(err, ErrTableMissing) {
		t.Fatalf("after damage: %v", err)
	}
	for _, want := range []string{"goto translate", "chain mine is not zipline's"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("nothing about %q in %v", want, err)
		}
	}
}
