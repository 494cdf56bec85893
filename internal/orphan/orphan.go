// SPDX-License-Identifier: Apache-2.0

// Package orphan has one system call made by a child process, for which nobody
// waits who waits for this process: some requests keep their sender long after what
// was asked for is done, a thread would keep the whole process, and to execute this
// program again for it takes longer than most of them.
//
// The child is a copy of this process (clone(2) without flags) in which Go's runtime
// is dead: there is one thread of it, and locks may be held by those that are
// missing. So between clone and exit there are raw system calls and nothing else, as
// in the standard library's own forkAndExecInChild.
package orphan

import (
	"fmt"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// reapPause is how often an ended child is looked for.
const reapPause = 10 * time.Millisecond

// Write has a child process write message to fd, and returns at once. The child has
// nothing of this process but fd: no other file and so no lock and no end of a pipe,
// no working directory, and no signal reaches it but SIGKILL. If it cannot have it
// so, it ends without having written.
//
// ended is called, by another goroutine, when the child has ended and was reaped.
// If this process ends before, it is reaped by who adopts it: the nearest ancestor
// that is a subreaper (PR_SET_CHILD_SUBREAPER), or process 1.
//
// The error says that there is no child.
func Write(fd int, message []byte, ended func()) error {
	pid, errno := cloneWriter(uintptr(fd), unsafe.Pointer(&message[0]), uintptr(len(message)))
	if errno != 0 {
		return fmt.Errorf("clone: %w", errno)
	}
	go func() {
		for !reap(int(pid)) {
			time.Sleep(reapPause)
		}
		ended()
	}()
	return nil
}

// reap says whether the child has ended. A wait in the kernel would hold the only
// processor that the plugin's Go code has.
func reap(pid int) bool {
	got, err := unix.Wait4(pid, nil, unix.WNOHANG|unix.WALL, nil)
	return got == pid || err == unix.ECHILD
}

var root = [...]byte{'/', 0}

// cloneWriter makes the child. The exit signal is none: this process's children are
// other people's business too, and nobody who does not ask for such a child by
// __WALL meets it. The kernel makes it SIGCHLD when the child is adopted
// (reparent_leader in kernel/exit.c), so it is reaped like any other then.
//
// Signals are blocked in both until the copy is made, and in the child for ever: a
// handler is Go code. With that, and without a stack that could grow, the goroutine
// stays on its thread.
//
//go:noinline
//go:norace
//go:nosplit
func cloneWriter(fd uintptr, message unsafe.Pointer, length uintptr) (pid uintptr, errno syscall.Errno) {
	all, old := ^uint64(0), uint64(0)
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&old)), unsafe.Sizeof(all), 0, 0)
	pid, _, errno = syscall.RawSyscall6(unix.SYS_CLONE, 0, 0, 0, 0, 0, 0)
	if errno != 0 || pid != 0 {
		syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&old)), 0, unsafe.Sizeof(old), 0, 0)
		return pid, errno
	}
	// In the child. close_range(2) is there since Linux 5.9.
	_, _, errno = syscall.RawSyscall(unix.SYS_CLOSE_RANGE, fd+1, 1<<32-1, 0)
	if errno == 0 && fd != 0 {
		_, _, errno = syscall.RawSyscall(unix.SYS_CLOSE_RANGE, 0, fd-1, 0)
	}
	if errno == 0 {
		_, _, errno = syscall.RawSyscall(unix.SYS_CHDIR, uintptr(unsafe.Pointer(&root)), 0, 0)
	}
	if errno == 0 {
		_, _, errno = syscall.RawSyscall(unix.SYS_WRITE, fd, uintptr(message), length)
	}
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, uintptr(errno), 0, 0)
	}
}
