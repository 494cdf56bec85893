// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"strings"
	"sync"

	"github.com/cilium/ebpf/btf"
)

// tokens has the name of each reason as lib/reason.h has it, which the object
// carries: REASON_NEXT_CHECK_IN is next-check-in.
var tokens = sync.OnceValue(func() map[Reason]string {
	names := map[Reason]string{}
	spec, err := LoadZipline()
	if err != nil {
		return names
	}
	var enum *btf.Enum
	if err := spec.Types.TypeByName("reason", &enum); err != nil {
		return names
	}
	for _, v := range enum.Values {
		token := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(v.Name, "REASON_"), "_", "-"))
		if token != "drop-first" && token != "next-first" {
			names[Reason(v.Value)] = token
		}
	}
	return names
})

// Token returns the reason in one word, as flags, JSON and the labels of metrics
// have it. It never changes, as the number does not.
func (r ZiplineReason) Token() string {
	if token := tokens()[r]; token != "" {
		return token
	}
	return fmt.Sprintf("reason-%d", uint32(r))
}

// ReasonsByToken returns all reasons by their token.
func ReasonsByToken() map[string]Reason {
	reasons := map[string]Reason{}
	for r, token := range tokens() {
		reasons[token] = r
	}
	return reasons
}
