// SPDX-License-Identifier: Apache-2.0

package archtest

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/zipline-cni/zipline/internal/testutil"
)

// reason is how a header begins: license, guard, and a comment that is not of the
// first function or struct.
var reason = regexp.MustCompile(`^/\* SPDX-License-Identifier: .*\n#ifndef \w+\n#define \w+\n\n/\*\s(?:[^*]|\*[^/])*\*/\n\n`)

func TestHeadersSayWhatTheyAreFor(t *testing.T) {
	headers, err := filepath.Glob(filepath.Join(testutil.RepoRoot(t), "bpf", "lib", "*.h"))
	if err != nil || len(headers) == 0 {
		t.Fatalf("headers %v: %v", headers, err)
	}
	for _, name := range headers {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !reason.Match(text) {
			t.Errorf("%s does not begin with what it is for", name)
		}
	}
}
