// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"errors"

	"github.com/zipline-cni/zipline/internal/nfnl"
)

// Link groups of the host side of endpoints. Rules tell endpoints from all
// other devices by them.
const (
	// GroupChecked is the link group of endpoints whose packets must carry a
	// source address that is routed to their device.
	GroupChecked = 31340
	// GroupUnchecked is the link group of endpoints with "sourceCheck": false.
	GroupUnchecked = 31341
)

// TableName is the name of the table; its family is inet.
const TableName = "zipline"

// ErrNoTable says that the table is missing, incomplete, or was written by
// another version of the ruleset. [Ruleset.Install] mends it.
var ErrNoTable = errors.New("table inet zipline is missing, incomplete or of another version")

// Ruleset is a connection to the nftables of one network namespace. It must not
// be used by two goroutines at once.
type Ruleset struct{ conn *nfnl.Conn }

// Open connects to the nftables of the calling thread's network namespace. The
// caller must Close.
func Open() (*Ruleset, error) {
	conn, err := nfnl.Open()
	if err != nil {
		return nil, err
	}
	return &Ruleset{conn}, nil
}

// Close ends the connection. After a deletion, by whomever in the namespace, it
// waits for the kernel to free what was deleted (about 10 ms), and so do all changes
// of nftables there meanwhile: package rcu shortens the wait.
func (r *Ruleset) Close() error { return r.conn.Close() }
