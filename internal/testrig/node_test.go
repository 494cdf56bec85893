// SPDX-License-Identifier: Apache-2.0

package testrig

import (
	"os"
	"path/filepath"
	"testing"
)

func TestASwitchThatAKilledProcessLeftOnIsOurs(t *testing.T) {
	for _, c := range []struct {
		knob string
		note bool
		want bool
	}{
		{"0\n", false, true}, {"0\n", true, true},
		{"1\n", false, false}, // the administrator's
		{"1\n", true, true},
	} {
		knob, note := filepath.Join(t.TempDir(), "knob"), filepath.Join(t.TempDir(), "note")
		files := map[string]string{knob: c.knob}
		if c.note {
			files[note] = ""
		}
		for name, text := range files {
			if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := isNormal(knob, note); got != c.want {
			t.Errorf("switch %q, note %v: to be switched off %v; want %v", c.knob, c.note, got, c.want)
		}
	}
}
