// SPDX-License-Identifier: Apache-2.0

package ipam

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// This file has every call that changes something in a pool's directory. Errors
// are *IOError and keep their cause, so that errors.Is finds fs.ErrExist and
// fs.ErrNotExist.

// open is open(2) with O_CLOEXEC: a lock must not live on in a child process.
func open(path string, flags int, mode uint32) (int, error) {
	for {
		if fd, err := unix.Open(path, flags|unix.O_CLOEXEC, mode); err != unix.EINTR {
			return fd, err
		}
	}
}

// readFile is os.ReadFile with half the system calls for a file that is small,
// as all files here are. Errors are *IOError.
func readFile(path string) ([]byte, error) {
	fd, err := open(path, unix.O_RDONLY, 0)
	if err != nil {
		return nil, ioError("open", path, err)
	}
	buf := make([]byte, 512)
	n, err := unix.Read(fd, buf)
	_ = unix.Close(fd)
	if err != nil {
		return nil, ioError("read", path, err)
	}
	if n < len(buf) {
		return buf[:n], nil
	}
	content, err := os.ReadFile(path)
	return content, ioError("read", path, err)
}

// about announces a change.
func (st *store) about(change string) {
	if st.step != nil {
		st.step(change)
	}
}

func (s *session) change(name string) {
	s.changed = true
	s.about(name)
}

// mkdir makes a directory that may be there already.
func (s *session) mkdir(path string) error {
	s.change("mkdir")
	if err := os.Mkdir(path, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return ioError("mkdir", path, err)
	}
	return nil
}

// write makes a new file in the place of one that may be left from a process
// that died. The file is not truncated but removed, for it may be linked to a
// lease.
func (s *session) write(path string, content []byte) error {
	if err := s.remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.change("create")
	fd, err := open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, fileMode)
	if err != nil {
		return ioError("create", path, err)
	}
	s.change("write")
	n, err := unix.Write(fd, content)
	if err == nil && n < len(content) {
		err = unix.ENOSPC
	}
	if closeErr := unix.Close(fd); err == nil {
		err = closeErr
	}
	return ioError("write", path, err)
}

// overwrite replaces a file's content in place, without emptying it first.
func (s *session) overwrite(path string, content []byte) error {
	s.change("overwrite")
	fd, err := open(path, unix.O_WRONLY|unix.O_CREAT, fileMode)
	if err != nil {
		return ioError("open", path, err)
	}
	defer func() { _ = unix.Close(fd) }()
	if _, err := unix.Pwrite(fd, content, 0); err != nil {
		return ioError("write", path, err)
	}
	s.change("truncate")
	return ioError("truncate", path, unix.Ftruncate(fd, int64(len(content))))
}

func (s *session) link(from, to string) error {
	s.change("link")
	return ioError("link", to, os.Link(from, to))
}

func (s *session) symlink(target, path string) error {
	s.change("symlink")
	return ioError("symlink", path, os.Symlink(target, path))
}

func (s *session) rename(from, to string) error {
	s.change("rename")
	return ioError("rename", to, os.Rename(from, to))
}

// remove removes a file, not a directory.
func (s *session) remove(path string) error {
	s.change("remove")
	return ioError("remove", path, unix.Unlink(path))
}

// removeAll removes whatever has this name, if anything.
func (s *session) removeAll(path string) error {
	s.change("remove")
	return ioError("remove", path, os.RemoveAll(path))
}
