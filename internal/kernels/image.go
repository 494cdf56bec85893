// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
)

// image is the content of an initramfs.
type image struct {
	entries map[string]entry
}

// entry is one file: a copy of one of this machine, a text, or, with neither, a
// link or a directory.
type entry struct {
	mode   fs.FileMode
	source string
	text   []byte
}

func newImage() *image { return &image{entries: map[string]entry{}} }

// clone returns an image that can be added to.
func (i *image) clone() *image { return &image{entries: maps.Clone(i.entries)} }

func (i *image) add(name string, e entry) {
	for dir := path.Dir(name); dir != "/" && dir != "."; dir = path.Dir(dir) {
		if _, ok := i.entries[dir]; !ok {
			i.entries[dir] = entry{mode: fs.ModeDir | 0o755}
		}
	}
	i.entries[name] = e
}

func (i *image) text(name, text string) { i.add(name, entry{mode: 0o644, text: []byte(text)}) }

func (i *image) directory(name string) { i.add(name, entry{mode: fs.ModeDir | 0o755}) }

func (i *image) link(name, target string) {
	i.add(name, entry{mode: fs.ModeSymlink | 0o777, text: []byte(target)})
}

// file copies a file of this machine.
func (i *image) file(name, source string) error {
	info, err := os.Stat(source)
	if err != nil {
		return err
	}
	i.add(name, entry{mode: info.Mode().Perm(), source: source})
	return nil
}

// tree copies a directory of this machine, if there is one.
func (i *image) tree(name, source string) error {
	err := filepath.WalkDir(source, func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		relative, err := filepath.Rel(source, file)
		if err != nil {
			return err
		}
		return i.file(path.Join(name, relative), file)
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// write writes the image as an archive of cpio's format newc
// (Documentation/driver-api/early-userspace/buffer-format.rst).
func (i *image) write(name string) (err error) {
	file, err := os.Create(name)
	if err != nil {
		return fmt.Errorf("write initramfs: %w", err)
	}
	defer func() {
		if closeErr := file.Close(); err == nil && closeErr != nil {
			err = fmt.Errorf("write initramfs: %w", closeErr)
		}
	}()
	w := bufio.NewWriterSize(file, 1<<20)
	// A directory sorts before what is in it.
	for number, name := range slices.Sorted(maps.Keys(i.entries)) {
		if err := i.entries[name].write(w, number+1, name[1:]); err != nil {
			return fmt.Errorf("write %s to initramfs: %w", name, err)
		}
	}
	if err := (entry{}).write(w, 0, "TRAILER!!!"); err != nil {
		return fmt.Errorf("write end of initramfs: %w", err)
	}
	return w.Flush()
}

func (e entry) write(w io.Writer, inode int, name string) error {
	content, size, err := e.open()
	if err != nil {
		return err
	}
	defer func() { _ = content.Close() }() // read only
	const noDevice, links, owner, time = 0, 1, 0, 0
	header := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		inode, e.unixMode(), owner, owner, links, time, size, noDevice, noDevice, noDevice, noDevice, len(name)+1, 0, name)
	if _, err := io.WriteString(w, header+padding(len(header))); err != nil {
		return err
	}
	if _, err := io.CopyN(w, content, int64(size)); err != nil {
		return err
	}
	_, err = io.WriteString(w, padding(size))
	return err
}
