// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
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
type Ruleset struct {
	conn *netlink.Conn
	// written is how many bytes the socket's send buffer takes for sure.
	written int
}

// Open connects to the nftables of the calling thread's network namespace. The
// caller must Close.
func Open() (*Ruleset, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("open netfilter socket: %w", err)
	}
	return &Ruleset{conn: conn, written: defaultSendBuffer}, nil
}

// Close ends the connection.
func (r *Ruleset) Close() error {
	if err := r.conn.Close(); err != nil {
		return fmt.Errorf("close netfilter socket: %w", err)
	}
	return nil
}
