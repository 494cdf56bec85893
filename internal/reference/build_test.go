// SPDX-License-Identifier: Apache-2.0

package reference_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zipline-cni/zipline/internal/reference"
)

func TestReferencePluginsAnswerWithThePinnedVersion(t *testing.T) {
	dir := reference.Plugins(t)
	for _, name := range []string{"bridge", "ptp", "host-local", "static", "bandwidth", "firewall", "portmap", "tuning"} {
		cmd := exec.Command(filepath.Join(dir, name))
		cmd.Env = []string{"CNI_COMMAND=VERSION"}
		cmd.Stdin = strings.NewReader(`{"cniVersion":"1.1.0"}`)
		out, err := cmd.Output()
		if err != nil {
			t.Errorf("%s VERSION: %v", name, err)
		}
		if !strings.Contains(string(out), `"1.1.0"`) {
			t.Errorf("%s VERSION printed %s; want it to name 1.1.0", name, out)
		}
	}
}

func TestReferencePluginsAreBuiltOnce(t *testing.T) {
	if first, second := reference.Plugins(t), reference.Plugins(t); first != second {
		t.Errorf("built in %s, then in %s", first, second)
	}
}
