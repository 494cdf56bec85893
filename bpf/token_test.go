// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"regexp"
	"testing"
)

func TestEveryReasonHasAToken(t *testing.T) {
	all := ReasonsByToken()
	if len(all) != len(reasonNames) {
		t.Errorf("%d tokens for %d reasons", len(all), len(reasonNames))
	}
	for token, reason := range all {
		if reason.Token() != token || !regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`).MatchString(token) {
			t.Errorf("%q is the token of %q, which has %q", token, reason, reason.Token())
		}
	}
	if Reason(200).Token() != "reason-200" || ZiplineReasonREASON_NEXT_CHECK_IN.Token() != "next-check-in" {
		t.Errorf("tokens %q, %q", Reason(200).Token(), ZiplineReasonREASON_NEXT_CHECK_IN.Token())
	}
}
