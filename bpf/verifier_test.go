// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"testing"

	"github.com/cilium/ebpf"

	"github.com/zipline-cni/zipline/internal/testutil"
)

// maxVerified bounds how many instructions the verifier goes through. Kernels
// refuse a program at a million; older ones see through less, so they go through
// more than this one.
const maxVerified = 200_000

func TestProgramsAreCheapToVerify(t *testing.T) {
	for _, conntrack := range []bool{true, false} {
		w := newWorld(t, conntrack)
		for name, program := range map[string]*ebpf.Program{
			ZiplineProgFromEndpoint: w.objs.FromEndpoint,
			ZiplineProgFromUplink:   w.objs.FromUplink,
			ZiplineProgToDevice:     w.objs.ToDevice,
		} {
			info, err := program.Info()
			if err != nil {
				t.Fatal(err)
			}
			verified, ok := info.VerifiedInstructions()
			if !ok {
				testutil.RequireKernel(t, "count of verified instructions (5.16)", ebpf.ErrNotSupported)
			}
			size, err := info.TranslatedSize()
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%s, conntrack %t: %d instructions, the verifier goes through %d", name, conntrack, size/8, verified)
			if verified > maxVerified && *ranFile == "" {
				t.Errorf("%s: the verifier goes through %d instructions, more than %d", name, verified, maxVerified)
			}
		}
	}
}
