// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"strings"
	"testing"

	"github.com/zipline-cni/zipline/internal/testrig"
	"github.com/zipline-cni/zipline/internal/testutil"
)

func TestAnObserverThatDoesNotBeginSaysWhatItSaid(t *testing.T) {
	testutil.RequireRoot(t)
	o := &observer{program: "ls", node: testrig.New(t, testrig.Options{}).Node}
	err := o.watch(Traced)
	if err == nil || !strings.Contains(err.Error(), `ls trace -o json has not begun, it says "ls: `) || strings.Contains(err.Error(), "%!") {
		t.Errorf("watch: %v", err)
	}
	if err := o.watch(Unobserved); err != nil {
		t.Errorf("nothing is to be ended: %v", err)
	}
}
