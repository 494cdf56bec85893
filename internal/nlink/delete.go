// SPDX-License-Identifier: Apache-2.0

package nlink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/orphan"
)

// How long the kernel's answer is waited for: as long as the netlink library does,
// and, when the process that had to bring it about has ended, for what is in the
// socket by then.
const (
	answerPatience = time.Minute
	lastPatience   = 10 * time.Millisecond
)

// write is replaced by tests, since no child can be made to fail.
var write = orphan.Write

// DeleteLink deletes a device, and with one end of a veth pair the other one. It
// returns when they are gone, with all that hung on them: names, addresses, routes,
// neighbours, programs, files in /sys. The error is ENODEV where there is no such
// device.
//
// It does not wait for the kernel to free their memory. That takes two or three grace
// periods (rcu_barrier in netdev_run_todo in net/core/dev.c: 15 ms with HZ=250),
// after the lock of all network devices was released and the last message was sent,
// but in the system call of who asked for the deletion. So a child process asks.
// Where that cannot be, this process does, and waits. After a child that nobody heard
// of, no such device is what was wanted.
func DeleteLink(index int) error {
	asked, answered, err := deleteApart(index)
	if !answered {
		err = netlink.LinkDel(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}})
		if asked && errors.Is(err, unix.ENODEV) {
			err = nil // the child has deleted it, and only its answer is missing
		}
	}
	if err != nil {
		return fmt.Errorf("delete device %d: %w", index, err)
	}
	return nil
}

// deleteApart deletes a device by a child process. Not asked means that there was no
// child, and not answered that nobody knows whether the device is there. The error
// is the kernel's answer.
func deleteApart(index int) (asked, answered bool, err error) {
	fd, err := deletionSocket(index)
	if err != nil {
		return false, false, nil
	}
	sock := os.NewFile(uintptr(fd), "netlink")
	defer func() { _ = sock.Close() }() // nothing was written
	if err := sock.SetReadDeadline(time.Now().Add(answerPatience)); err != nil {
		return false, false, nil
	}
	req := nl.NewNetlinkRequest(unix.RTM_DELLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	req.AddData(msg)
	ended := func() { _ = sock.SetReadDeadline(time.Now().Add(lastPatience)) } // closed: no matter
	if err := write(fd, req.Serialize(), ended); err != nil {
		return false, false, nil
	}
	answer := make([]byte, unix.NLMSG_HDRLEN+4)
	if _, err := sock.Read(answer); err != nil {
		return true, false, nil
	}
	if binary.NativeEndian.Uint16(answer[4:]) == unix.RTM_DELLINK {
		// The kernel still holds the lock, for the other end and the files in /sys
		// (unregister_netdevice_many_notify). To change nothing waits for the lock.
		_ = SetLink(index, LinkChange{}) // ENODEV
		return true, true, nil
	}
	if errno := -int32(binary.NativeEndian.Uint32(answer[unix.NLMSG_HDRLEN:])); errno != 0 {
		return true, true, syscall.Errno(errno)
	}
	return true, true, nil
}

// deletionSocket returns a socket that receives the news that the device with this
// index is gone, and answers. The filter keeps all other news of devices away,
// of which there are many where many containers go, and so the buffer never
// overflows. NLM_F_ECHO would do the same, but only since Linux 6.2.
func deletionSocket(index int) (fd int, err error) {
	fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return -1, err
	}
	defer func() {
		if err != nil {
			_ = unix.Close(fd) // nothing was written
		}
	}()
	filter := deletionFilter(index)
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &program); err != nil {
		return -1, err
	}
	return fd, unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (unix.RTNLGRP_LINK - 1)})
}

// deletionFilter lets NLMSG_ERROR pass, and RTM_DELLINK of the device itself: a
// bridge says so, too, of a port that leaves it, in the family AF_BRIDGE. Loads are
// big endian, netlink is not (socket(7), netlink(7)).
func deletionFilter(index int) []unix.SockFilter {
	const typeAt, familyAt, indexAt = 4, unix.NLMSG_HDRLEN, unix.NLMSG_HDRLEN + 4
	short := func(v uint16) uint32 {
		return uint32(binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, v)))
	}
	long := func(v uint32) uint32 { return binary.BigEndian.Uint32(binary.NativeEndian.AppendUint32(nil, v)) }
	equal := func(k uint32, yes, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jt: yes, Jf: no}
	}
	return []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: typeAt},
		equal(short(unix.NLMSG_ERROR), 5, 0),
		equal(short(unix.RTM_DELLINK), 0, 5),
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: familyAt},
		equal(unix.AF_UNSPEC, 0, 3),
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: indexAt},
		equal(long(uint32(index)), 0, 1),
		{Code: unix.BPF_RET | unix.BPF_K, K: 1<<32 - 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
}
