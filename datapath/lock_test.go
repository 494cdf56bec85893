// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/zipline-cni/zipline/internal/testrig"
	"github.com/zipline-cni/zipline/internal/testutil"
)

// TestLockThatIsNeverReleasedIsGivenUp stands for a process that was stopped while
// it had a lock. Who gave up does not get the lock in the end.
func TestLockThatIsNeverReleasedIsGivenUp(t *testing.T) {
	testutil.RequireRoot(t)
	node := testrig.New(t, testrig.Options{}).Node
	was := lockPatience
	t.Cleanup(func() { lockPatience = was })
	subnet := netip.MustParsePrefix("10.1.0.0/16")
	lock := func(exclusive bool, patience time.Duration) (file *os.File, err error) {
		lockPatience = patience
		_ = node.Do(func() error {
			file, err = lockSubnet(subnet, exclusive)
			return nil
		})
		return file, err
	}
	held, err := lock(false, was)
	if err != nil {
		t.Fatal(err)
	}
	if shared, err := lock(false, 0); err != nil {
		t.Errorf("a second shared lock: %v", err)
	} else {
		_ = shared.Close()
	}
	if file, err := lock(true, 20*time.Millisecond); !errors.Is(err, ErrBusy) || file != nil {
		t.Fatalf("got %v, %v; want ErrBusy", file, err)
	}
	// One that waits gets it when it is free.
	var group sync.WaitGroup
	group.Go(func() {
		time.Sleep(50 * time.Millisecond)
		_ = held.Close()
	})
	file, err := lock(true, was)
	if err != nil {
		t.Fatal(err)
	}
	_ = file.Close()
	group.Wait()
}
