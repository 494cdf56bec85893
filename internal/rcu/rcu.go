// SPDX-License-Identifier: Apache-2.0

// Package rcu shortens the kernel's waits for a grace period.
//
// Attaching a program to TCX, and deleting a device that has one, wait for a
// normal grace period with the lock of all network devices held
// (tcx_entry_sync in include/net/tcx.h calls synchronize_rcu): two or three
// ticks, 8 to 14 ms with HZ=250, in which no other device of the machine can be
// made, changed or deleted. Everything else that waits under this lock waits
// for an expedited grace period, some ten microseconds (synchronize_net).
// [Expedite] makes those two behave alike, and the close of a netfilter socket
// after a deletion, which waits with the lock of nftables changes held
// (nft_rcv_nl_event in nf_tables_api.c).
package rcu

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// knob is the switch: while it is 1, whoever waits for a grace period gets an
// expedited one (kernel-parameters.txt, rcupdate.rcu_expedited). A realtime
// kernel ignores it (rcupdate.rcu_normal).
const knob = "/sys/kernel/rcu_expedited"

// state is the file whose lock counts the users, and whose content says
// whether the knob was set by us. It is one for the machine, as the knob is.
const state = "/run/zipline/rcu"

// Expedite runs f with expedited grace periods. Several processes may do so at
// once; the last one puts the knob back. A process that is killed in f leaves
// it to the next one, which finds the note in the state file. Where the knob
// cannot be set (a read-only /sys, a process that hangs with the lock) or was set
// by somebody else, f just runs.
//
// Returns what f returns.
func Expedite(f func() error) error { return expedite(knob, state, f) }

// Settle puts the knob back for a process that was killed in [Expedite]. It
// costs one look at a file where there was none.
func Settle() { settle(knob, state) }

func settle(knob, state string) {
	if info, err := os.Stat(state); err != nil || info.Size() == 0 {
		return
	}
	_ = expedite(knob, state, func() error { return nil })
}

func expedite(knob, state string, f func() error) error {
	release, err := enter(knob, state)
	if err != nil {
		return f() // slower, and otherwise the same
	}
	defer release()
	return f()
}

// enter sets the knob and returns what puts it back.
func enter(knob, state string) (release func(), err error) {
	if err := os.MkdirAll(filepath.Dir(state), 0o700); err != nil {
		return nil, fmt.Errorf("make state directory: %w", err)
	}
	file, err := os.OpenFile(state, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open state: %w", err)
	}
	if err := share(file); err != nil {
		_ = file.Close() // nothing was written
		return nil, fmt.Errorf("lock state: %w", err)
	}
	if err := set(knob, file); err != nil {
		_ = file.Close() // the note in it, if there is one, is for the next user
		return nil, err
	}
	return func() { leave(knob, file) }, nil
}

// Who leaves holds the lock alone for some microseconds. One that was stopped
// there must hold up nobody, so it is waited for no longer than what an expedited
// grace period saves.
const (
	shareTries = 50
	sharePause = 200 * time.Microsecond
)

// share takes the lock of a user. Returns EWOULDBLOCK where it is not to be had.
func share(file *os.File) error {
	for range shareTries {
		if err := flock(file, unix.LOCK_SH|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		time.Sleep(sharePause)
	}
	return unix.EWOULDBLOCK
}

// set writes the note first: a knob that is set without a note stays set.
func set(knob string, file *os.File) error {
	value, err := os.ReadFile(knob)
	if err != nil {
		return fmt.Errorf("read %s: %w", knob, err)
	}
	if len(value) == 0 || value[0] != '0' {
		return nil // by another user of ours, or by the administrator
	}
	if _, err := file.WriteAt([]byte("1"), 0); err != nil {
		return fmt.Errorf("note the change of %s: %w", knob, err)
	}
	return write(knob, "1")
}

// leave puts the knob back if nobody else uses it. The attempt to lock
// exclusively gives the shared lock up in any case, so of two users that leave
// at once the second one succeeds.
func leave(knob string, file *os.File) {
	defer func() { _ = file.Close() }() // and with it the lock
	if flock(file, unix.LOCK_EX|unix.LOCK_NB) != nil {
		return
	}
	note := make([]byte, 1)
	if n, _ := file.ReadAt(note, 0); n == 0 {
		return // not ours to put back
	}
	if write(knob, "0") == nil {
		_ = file.Truncate(0) // else the next user puts it back once more
	}
}

func write(knob, value string) error {
	file, err := os.OpenFile(knob, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("set %s: %w", knob, err)
	}
	_, err = file.WriteString(value)
	return errors.Join(err, file.Close())
}

func flock(file *os.File, how int) error {
	for {
		if err := unix.Flock(int(file.Fd()), how); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
