// SPDX-License-Identifier: Apache-2.0

package prog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Where says at what place among the others a program is attached.
type Where string

// The places. Before and After go with an anchor.
const (
	First  Where = "first"
	Last   Where = "last"
	Before Where = "before"
	After  Where = "after"
)

// Options say what is attached where.
type Options struct {
	Object
	Device    string
	Direction Direction
	// Where and Anchor, the id or name of a program of that side. Optional: last.
	Where  Where
	Anchor string
	// Pin is the name below the bpffs, or the path, of the pin of the link.
	// Optional: without, the device owns the attachment.
	Pin string
	// Clsact attaches a filter also where the kernel has TCX. Without TCX it is one
	// anyway.
	Clsact bool
}

var (
	// ErrAnchor says that no program, or more than one, is the anchor.
	ErrAnchor = errors.New("no place")
	// ErrPin says that a pin cannot be made, or is something else's.
	ErrPin = errors.New("pin")
)

// Attach loads a program and attaches it. Replaced is the id of the program
// whose place it took, which only happens at a pin that was there.
func Attach(o Options) (_ *Attached, replaced uint32, err error) {
	links, err := devices(o.Device)
	if err != nil {
		return nil, 0, err
	}
	attrs := links[0].Attrs()
	pinPath, err := o.pinPath()
	if err != nil {
		return nil, 0, err
	}
	if !o.Clsact {
		_, err := listTCX(attrs, o.Direction)
		o.Clsact = errors.Is(err, errNoTCX)
		if o.Clsact && pinPath != "" {
			return nil, 0, attachError(o, err)
		}
	}
	// Nothing is loaded for a place that there is not.
	before, err := listSide(attrs, o.Direction)
	if err != nil {
		return nil, 0, err
	}
	anchor, err := o.anchor(before)
	if err != nil {
		return nil, 0, err
	}
	program, err := o.load(false)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, program.Close()) }()
	switch {
	case o.Clsact:
		err = attachClsact(program, attrs.Index, o, anchor)
	case pinPath != "":
		replaced, err = attachPinned(program, attrs.Index, o, anchor, pinPath)
	default:
		err = link.RawAttachProgram(link.RawAttachProgramOptions{
			Target: attrs.Index, Program: program, Attach: o.Direction.tcx(), Anchor: o.tcxAnchor(anchor),
		})
	}
	if err != nil {
		return nil, 0, attachError(o, err)
	}
	a, err := findAttached(o.Device, program)
	return a, replaced, err
}

func attachError(o Options, err error) error {
	return fmt.Errorf("attach to %s of %s: %w", o.Direction, o.Device, err)
}

// findAttached returns the attachment of a program that was just made.
func findAttached(device string, program *ebpf.Program) (*Attached, error) {
	info, err := program.Info()
	if err != nil {
		return nil, fmt.Errorf("read program: %w", err)
	}
	id, _ := info.ID()
	list, err := List(device)
	if err != nil {
		return nil, err
	}
	for _, a := range list {
		if a.ID == uint32(id) {
			return &a, nil
		}
	}
	return nil, fmt.Errorf("program %d was attached and is gone already", id)
}

// anchor finds the program that the place is relative to; nil for none.
func (o Options) anchor(have []Attached) (*Attached, error) {
	if o.Where != Before && o.Where != After {
		return nil, nil
	}
	hook := HookTCX
	if o.Clsact {
		hook = HookClsact
	}
	var names []string
	var found []Attached
	for _, a := range have {
		if a.Hook != hook {
			continue
		}
		names = append(names, fmt.Sprintf("%s (%d)", a.Name, a.ID))
		if a.is(o.Anchor) {
			found = append(found, a)
		}
	}
	there := "nothing is"
	if len(names) > 0 {
		there = strings.Join(names, ", ") + " is"
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("%w %s %s: %s at %s of %s by %s", ErrAnchor, o.Where, o.Anchor, there, o.Direction, o.Device, hook)
	case 1:
		return &found[0], nil
	default:
		return nil, fmt.Errorf("%w %s %s: several programs have this name, say which by its id: %s", ErrAnchor, o.Where, o.Anchor, strings.Join(names, ", "))
	}
}

// kernelName is as much of a program's name as the kernel keeps.
func kernelName(name string) string { return name[:min(len(name), unix.BPF_OBJ_NAME_LEN-1)] }

// is says whether a word names the program, by its id or its name.
func (a *Attached) is(word string) bool {
	id, err := strconv.ParseUint(word, 10, 32)
	return err == nil && uint32(id) == a.ID || kernelName(word) == a.Name
}

func (o Options) tcxAnchor(relative *Attached) link.Anchor {
	switch o.Where {
	case First:
		return link.Head()
	case Before:
		return link.BeforeProgramByID(ebpf.ProgramID(relative.ID))
	case After:
		return link.AfterProgramByID(ebpf.ProgramID(relative.ID))
	default:
		return link.Tail()
	}
}

// pinPath returns the path of the pin, "" for none.
func (o Options) pinPath() (string, error) {
	if o.Pin == "" {
		return "", nil
	}
	if o.Clsact {
		return "", fmt.Errorf("%w %s: a clsact filter has no link to pin; the device keeps it", ErrPin, o.Pin)
	}
	path := filepath.Clean(o.Pin)
	if !filepath.IsAbs(path) {
		path = filepath.Join(bpffs, path)
	}
	if strings.Contains(path, ".") {
		return "", fmt.Errorf("%w %s: a bpffs allows no dot in a name", ErrPin, path)
	}
	var stat unix.Statfs_t
	dir := filepath.Dir(path)
	for dir != "/" && unix.Statfs(dir, &stat) != nil {
		dir = filepath.Dir(dir)
	}
	if stat.Type != unix.BPF_FS_MAGIC {
		return "", fmt.Errorf("%w %s: %s is no bpffs here (`ip netns exec` hides the machine's; `nsenter --net=FILE` does not)", ErrPin, path, bpffs)
	}
	return path, nil
}

// attachPinned attaches by a link and pins it, or replaces the program of the
// link that is pinned there for the same side of the same device.
func attachPinned(program *ebpf.Program, index int, o Options, anchor *Attached, path string) (replaced uint32, err error) {
	if err := RemoveSevered(path); err != nil {
		return 0, err
	}
	if _, err := os.Stat(path); err == nil {
		return replacePinned(program, index, o, path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return 0, fmt.Errorf("%w %s: %w", ErrPin, path, err)
	}
	l, err := link.AttachTCX(link.TCXOptions{
		Interface: index, Program: program, Attach: o.Direction.tcx(), Anchor: o.tcxAnchor(anchor),
	})
	if err != nil {
		return 0, err
	}
	// A link without a pin ends here, and what it attached.
	defer func() { err = errors.Join(err, l.Close()) }()
	if err := l.Pin(path); err != nil {
		return 0, fmt.Errorf("%w %s: %w", ErrPin, path, err)
	}
	return 0, nil
}

func replacePinned(program *ebpf.Program, index int, o Options, path string) (replaced uint32, err error) {
	l, err := link.LoadPinnedLink(path, nil)
	if err != nil {
		return 0, fmt.Errorf("%w %s is there, and is no link: %w", ErrPin, path, err)
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	info, err := l.Info()
	if err != nil {
		return 0, fmt.Errorf("read pinned link: %w", err)
	}
	tcx := info.TCX()
	switch {
	case tcx == nil:
		return 0, fmt.Errorf("%w %s is there, and is a link of another kind", ErrPin, path)
	case int(tcx.Ifindex) != index || uint32(tcx.AttachType) != uint32(o.Direction.tcx()):
		return 0, fmt.Errorf("%w %s is there, for another side or device (index %d)", ErrPin, path, tcx.Ifindex)
	}
	if err := l.Update(program); err != nil {
		return 0, fmt.Errorf("replace program of pinned link: %w", err)
	}
	return uint32(info.Program), nil
}
