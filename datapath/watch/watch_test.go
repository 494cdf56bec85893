// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/zipline-cni/zipline/datapath"
	"github.com/zipline-cni/zipline/internal/testrig"
	"github.com/zipline-cni/zipline/internal/testutil"
)

// TestLostAnnouncements does not read while far more happens than the socket has
// room for: it is said, and all that is there in the end is told once.
func TestLostAnnouncements(t *testing.T) {
	testutil.RequireRoot(t)
	node := testrig.New(t, testrig.Options{}).Node
	const devices = 150
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	events, ready, goOn, ended := make(chan Event, 10*devices), make(chan bool), make(chan bool), make(chan error, 1)
	go func() {
		ended <- node.Do(func() error {
			return watch(ctx, 1, func() { close(ready) }, func(e Event) {
				<-goOn // the first one waits until all has happened
				events <- e
			})
		})
	}()
	<-ready
	var batch strings.Builder
	for i := range devices {
		fmt.Fprintf(&batch, "link add zlx%d type veth peer name p%d\nlink set zlx%d group %d alias \"zipline net c%d eth0\"\n", i, i, i, datapath.Group, i)
	}
	fmt.Fprintf(&batch, "link del zlx0\n")
	node.MustRunInput(t, batch.String(), "ip", "-batch", "-")
	close(goOn)
	attached, lost := map[string]int{}, 0
	for timeout := time.After(20 * time.Second); lost == 0 || len(attached) < devices-1; {
		select {
		case e := <-events:
			switch e.Kind {
			case Attach:
				attached[e.Endpoint.ContainerID]++
			case Detach:
				attached[e.Endpoint.ContainerID]--
			case EventsWereLost:
				lost++
			}
		case <-timeout:
			t.Fatalf("%d of %d attached, %d times lost", len(attached), devices-1, lost)
		}
	}
	for id, n := range attached {
		if n != 1 && id != "c0" || id == "c0" && n != 0 {
			t.Errorf("%s: %d more attachments than detachments", id, n)
		}
	}
	// It goes on.
	node.MustRun(t, "ip", "link", "del", "zlx1")
	for timeout := time.After(10 * time.Second); attached["c1"] != 0; {
		select {
		case e := <-events:
			if e.Kind == Detach {
				attached[e.Endpoint.ContainerID]--
			}
		case <-timeout:
			t.Fatal("no event after the loss")
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
