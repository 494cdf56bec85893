// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/zipline-cni/zipline/datapath"
	"github.com/zipline-cni/zipline/internal/testrig"
	"github.com/zipline-cni/zipline/internal/testutil"
)

// TestLostAnnouncements does not read while far more happens than the socket has
// room for: it is said, and all that is there in the end is told once. That has a
// device which is made while the reader is told what it missed.
func TestLostAnnouncements(t *testing.T) {
	testutil.RequireRoot(t)
	node := testrig.New(t, testrig.Options{}).Node
	const devices = 150
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var late sync.Once
	overrun, lateErr := false, error(nil)
	events, ready, goOn, ended := make(chan Event, 10*devices), make(chan bool), make(chan bool), make(chan error, 1)
	go func() {
		ended <- node.Do(func() error {
			return watch(ctx, 1, func() { close(ready) }, func(e Event) {
				<-goOn // the first one waits until all has happened
				if overrun && e.Kind == Attach {
					late.Do(func() { lateErr = makeLate() })
				}
				overrun = overrun || e.Kind == EventsWereLost
				events <- e
			})
		})
	}()
	<-ready
	var batch strings.Builder
	for i := range devices { // up, since the kernel announces nothing else of a device that is down
		fmt.Fprintf(&batch, "link add zlx%d type veth peer name p%d\nlink set zlx%d up group %d alias \"zipline net c%d eth0\"\n", i, i, i, datapath.Group, i)
	}
	fmt.Fprintf(&batch, "link del zlx0\n")
	node.MustRunInput(t, batch.String(), "ip", "-batch", "-")
	close(goOn)
	attached, lost := map[string]int{}, 0
	for timeout := time.After(20 * time.Second); lost == 0 || attached["late"] == 0 || len(attached) < devices; {
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
		case err := <-ended:
			t.Fatalf("the watch ends: %v", err)
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
	if err := errors.Join(<-ended, lateErr); err != nil {
		t.Error(err)
	}
}

func makeLate() error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.Group = "zlxlate", datapath.Group
	link := &netlink.Veth{LinkAttrs: attrs, PeerName: "late"}
	return errors.Join(netlink.LinkAdd(link), netlink.LinkSetAlias(link, "zipline net late eth0"))
}
