// SPDX-License-Identifier: Apache-2.0

package ipam

import (
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"
)

// nodeAttribute is an extended attribute of a lease's file, and has the name of
// the node that this package made the lease for. It ends with the file, so no
// other's lease can ever have it: host-local makes a new file for each lease.
const nodeAttribute = "user.zipline.node"

// mark writes who the lease is for to a file that has no attribute yet. It has no
// error to return: on a file system without attributes (a tmpfs before 6.6, NFS)
// nobody's lease can be told from another's, and [Stale] leaves all of them alone.
func (s *session) mark(path, node string) {
	if node == "" {
		return
	}
	s.change("mark")
	_ = unix.Lsetxattr(path, nodeAttribute, []byte(node), unix.XATTR_CREATE)
}

// moveTo makes a lease of ours the node's which goes on with it. One of
// host-local's stays unmarked.
func (s *session) moveTo(node string, addr netip.Addr) error {
	if at := s.nodeOf(addr); at == "" || at == node {
		return nil
	}
	s.change("mark")
	err := unix.Lsetxattr(s.path(addr), nodeAttribute, []byte(node), unix.XATTR_REPLACE)
	if errors.Is(err, unix.ENODATA) {
		return nil
	}
	return ioError("setxattr", s.path(addr), err)
}

// nodeOf returns the node that a lease was made for, or "" where it isn't known.
func (st *store) nodeOf(addr netip.Addr) string {
	var buf [64]byte
	n, err := unix.Lgetxattr(st.path(addr), nodeAttribute, buf[:])
	if err != nil {
		return ""
	}
	return string(buf[:n])
}
