// SPDX-License-Identifier: Apache-2.0

package prog

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// bpffs is where pins go.
const bpffs = "/sys/fs/bpf"

// Object names a program in an object file.
type Object struct {
	// File is the path of an ELF file, as clang -target bpf makes it.
	File string
	// Program or Section chooses one program. Optional where there is only one.
	Program, Section string
}

func (o Object) error(err error) error { return fmt.Errorf("object %s: %w", o.File, err) }

// logLines is how much of the verifier's log an error has.
const logLines = 10

// open reads the file and returns its description with only what the chosen
// program needs.
func (o Object) open() (*ebpf.CollectionSpec, string, error) {
	spec, err := ebpf.LoadCollectionSpec(o.File)
	if errors.Is(err, btf.ErrNotFound) {
		err = fmt.Errorf("%w: it has no BTF, compile it with clang -g", err)
	}
	if err != nil {
		return nil, "", o.error(err)
	}
	name, err := o.choose(spec)
	if err != nil {
		return nil, "", o.error(err)
	}
	// A program that tail calls others names them in a map.
	calls := slices.ContainsFunc(slices.Collect(maps.Values(spec.Maps)), func(m *ebpf.MapSpec) bool {
		return m.Type == ebpf.ProgramArray && len(m.Contents) > 0
	})
	for other := range spec.Programs {
		if other != name && !calls {
			delete(spec.Programs, other)
		}
	}
	return spec, name, nil
}

func (o Object) choose(spec *ebpf.CollectionSpec) (string, error) {
	var fits []string
	for _, name := range slices.Sorted(maps.Keys(spec.Programs)) {
		p := spec.Programs[name]
		if (o.Program == "" || o.Program == name) && (o.Section == "" || o.Section == p.SectionName) {
			fits = append(fits, name)
		}
	}
	switch {
	case len(spec.Programs) == 0:
		return "", errors.New("it has no programs")
	case len(fits) == 0:
		return "", fmt.Errorf("no program is named so; there are %s", describe(spec))
	case len(fits) > 1:
		return "", fmt.Errorf("several programs fit, name one of %s", describe(spec))
	}
	p := spec.Programs[fits[0]]
	switch p.Type {
	case ebpf.SchedCLS:
		return fits[0], nil
	case ebpf.UnspecifiedProgram:
		return "", fmt.Errorf(`section %q does not say what kind of program %s is: call it "tc", "tcx/ingress" or "classifier"`, p.SectionName, fits[0])
	default:
		return "", fmt.Errorf("section %q makes %s a %s program, and only tc programs go on a device here", p.SectionName, fits[0], p.Type)
	}
}

// describe lists the programs with their sections.
func describe(spec *ebpf.CollectionSpec) string {
	var texts []string
	for _, name := range slices.Sorted(maps.Keys(spec.Programs)) {
		texts = append(texts, fmt.Sprintf("%s (section %q)", name, spec.Programs[name].SectionName))
	}
	return strings.Join(texts, ", ")
}

// load loads the program with its maps. Maps that ask to be pinned by their name
// are pinned in, or taken from, the bpffs. The caller closes the program, which
// keeps its maps. logged asks for the verifier's log.
func (o Object) load(logged bool) (_ *ebpf.Program, err error) {
	spec, name, err := o.open()
	if err != nil {
		return nil, err
	}
	options := ebpf.CollectionOptions{Maps: ebpf.MapOptions{PinPath: bpffs}}
	if logged {
		options.Programs.LogLevel = ebpf.LogLevelInstruction | ebpf.LogLevelStats
		options.Programs.LogSizeStart = 1 << 20
	}
	coll, err := ebpf.NewCollectionWithOptions(spec, options)
	if err != nil {
		return nil, o.error(loadError(name, err))
	}
	defer coll.Close()
	return coll.DetachProgram(name), nil
}

// VerifierError says why the verifier refused a program. Its text ends with the
// last lines of the log, which say at what it stopped.
type VerifierError struct {
	Program string
	err     *ebpf.VerifierError
}

// Error returns the program, the cause and the end of the log.
func (e *VerifierError) Error() string {
	lines := slices.Clone(e.err.Log)
	if len(lines) > logLines {
		lines = lines[len(lines)-logLines:]
	}
	for i, line := range lines {
		lines[i] = "  " + strings.TrimSpace(line)
	}
	return fmt.Sprintf("the verifier refuses %s: %v\n%s", e.Program, e.err.Cause, strings.Join(lines, "\n"))
}

// Unwrap returns the library's error, which has the whole log.
func (e *VerifierError) Unwrap() error { return e.err }

// loadError makes one error of why the kernel did not take a program.
func loadError(name string, err error) error {
	var verifier *ebpf.VerifierError
	switch {
	case errors.As(err, &verifier):
		return &VerifierError{Program: name, err: verifier}
	case errors.Is(err, btf.ErrNotFound) || noKernelBTF(err):
		return fmt.Errorf("load %s: it needs the kernel's BTF (/sys/kernel/btf/vmlinux), and there is none: %w", name, err)
	default:
		return fmt.Errorf("load %s: %w", name, err)
	}
}

func noKernelBTF(err error) bool {
	_, statErr := os.Stat("/sys/kernel/btf/vmlinux")
	return errors.Is(err, ebpf.ErrNotSupported) && errors.Is(statErr, os.ErrNotExist)
}

// Verify loads the program, attaches it to nothing, and returns what the
// verifier logged, also where it refuses.
func (o Object) Verify() (log string, err error) {
	program, err := o.load(true)
	var verifier *ebpf.VerifierError
	if errors.As(err, &verifier) {
		return strings.Join(verifier.Log, "\n"), err
	}
	if err != nil {
		return "", err
	}
	log = program.VerifierLog
	return log, program.Close()
}
