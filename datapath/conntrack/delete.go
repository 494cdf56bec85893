// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/nfnl"
)

// errNoFilter says that the kernel cannot delete or list by an address.
var errNoFilter = errors.New("conntrack filter not supported")

// DeleteAddresses deletes every connection tracking entry of the calling
// thread's network namespace in which one of addrs is the source of the original
// direction (the address opened the flow) or the source of the reply direction
// (the flow really ends at the address, whatever destination it was opened to).
// It covers all protocols and zones; flows in a flowtable stay, as the kernel
// lets nobody delete them.
//
// It returns by how many entries the table shrank: flows of others that begin
// and end meanwhile blur the number, and entries of addrs that appear meanwhile
// may survive. The caller first sees to it that no packet of them can come.
//
// A namespace without entries costs one round trip. For IPv4 the kernel deletes
// what matches itself (since 6.12; before, it lists what matches, and before 5.8
// everything). For IPv6 it lists everything: its comparison of IPv6 addresses is
// inverted (ctnetlink_filter_match_tuple, 5.8 to 6.18 at least), so that a filter
// for an address would hit all other addresses.
func DeleteAddresses(addrs ...netip.Addr) (deleted int, err error) {
	var v4, v6 []netip.Addr
	for _, addr := range addrs {
		switch addr = addr.Unmap().WithZone(""); {
		case addr.Is4():
			v4 = append(v4, addr)
		case addr.Is6():
			v6 = append(v6, addr)
		default:
			return 0, errors.New("delete connections: no address")
		}
	}
	conn, err := nfnl.Open()
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	before, err := count(conn)
	if err != nil || before == 0 {
		return 0, err
	}
	if err := errors.Join(delete4(conn, v4), deleteListed(conn, v6, listAll)); err != nil {
		return 0, fmt.Errorf("delete connections of %v: %w", addrs, err)
	}
	after, err := count(conn)
	return max(before-after, 0), err
}

// delete4 uses the best that the kernel has.
func delete4(conn *nfnl.Conn, addrs []netip.Addr) error {
	err := deleteMatching(conn, addrs)
	if errors.Is(err, errNoFilter) {
		err = deleteListed(conn, addrs, listMatching)
	}
	if errors.Is(err, errNoFilter) {
		err = deleteListed(conn, addrs, listAll)
	}
	return err
}

// count returns how many entries the namespace has.
func count(conn *nfnl.Conn) (int, error) {
	first, err := conn.Send(newMessage(getStats, netlink.Request, unix.AF_UNSPEC, nil))
	if err != nil {
		return 0, err
	}
	m, err := conn.Receive(first)
	if err != nil {
		return 0, fmt.Errorf("read number of connections: %w", err)
	}
	n := -1
	err = nfnl.EachAttribute(m, func(ad *netlink.AttributeDecoder) {
		if ad.Type() == attrStatsEntries {
			n = int(ad.Uint32())
		}
	})
	if err == nil && n < 0 {
		err = errors.New("no number in the answer")
	}
	if err != nil {
		return 0, fmt.Errorf("read number of connections: %w", err)
	}
	return n, nil
}

// deleteMatching has the kernel delete by filter. A kernel that does not know
// how takes the message for the deletion of one entry whose tuple lacks its
// ports, and refuses it: errNoFilter. It can never take it for a request to
// delete everything, as there is a tuple.
func deleteMatching(conn *nfnl.Conn, addrs []netip.Addr) error {
	var errs []error
	for _, addr := range addrs {
		first, err := conn.Send(
			filterMessage(deleteEntry, netlink.Acknowledge, addr, original),
			filterMessage(deleteEntry, netlink.Acknowledge, addr, reply))
		if err != nil {
			return err
		}
		for range 2 {
			_, err := conn.Receive(first)
			errs = append(errs, filterError(err))
		}
	}
	return errors.Join(errs...)
}

// lister finds the entries of addresses.
type lister func(*nfnl.Conn, []netip.Addr) ([]entry, error)

// deleteListed finds entries and deletes them one by one.
func deleteListed(conn *nfnl.Conn, addrs []netip.Addr, find lister) error {
	if len(addrs) == 0 {
		return nil
	}
	entries, err := find(conn, addrs)
	if err != nil {
		return err
	}
	return deleteEntries(conn, entries)
}

// listMatching has the kernel pick the entries, by one walk for each address and
// direction. An entry that matches twice is there twice.
func listMatching(conn *nfnl.Conn, addrs []netip.Addr) ([]entry, error) {
	var entries []entry
	for _, addr := range addrs {
		for _, d := range []direction{original, reply} {
			found, err := list(conn, filterMessage(getEntry, 0, addr, d), addrs)
			if err != nil {
				return nil, filterError(err)
			}
			entries = append(entries, found...)
		}
	}
	return entries, nil
}

// listAll reads all entries of the addresses' family, by one walk.
func listAll(conn *nfnl.Conn, addrs []netip.Addr) ([]entry, error) {
	return list(conn, newMessage(getEntry, netlink.Request, familyOf(addrs[0]), nil), addrs)
}

func list(conn *nfnl.Conn, request netlink.Message, addrs []netip.Addr) ([]entry, error) {
	var entries []entry
	err := conn.Dump(request, func(m netlink.Message) error {
		e, err := decodeEntry(m)
		// A kernel that does not know filters sends everything.
		if err == nil && (slices.Contains(addrs, e.original) || slices.Contains(addrs, e.reply)) {
			entries = append(entries, e)
		}
		return err
	})
	// The table of a busy node changes during every walk. The kernel keeps its
	// place, so that what stayed was seen.
	if errors.Is(err, nfnl.ErrInterrupted) {
		err = nil
	}
	return entries, err
}

func filterError(err error) error {
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("%w: %w", errNoFilter, err)
	}
	return err
}

// window is how many deletions are under way at once: their acknowledgements
// must fit in the socket's receive buffer.
const window = 64

func deleteEntries(conn *nfnl.Conn, entries []entry) error {
	for len(entries) > 0 {
		n := min(window, len(entries))
		messages := make([]netlink.Message, n)
		for i, e := range entries[:n] {
			messages[i] = e.deleteMessage()
		}
		entries = entries[n:]
		first, err := conn.Send(messages...)
		if err != nil {
			return err
		}
		for range messages {
			_, err := conn.Receive(first)
			// ENOENT: ended by itself, or listed twice. EBUSY: in a flowtable.
			if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EBUSY) {
				return err
			}
		}
	}
	return nil
}
