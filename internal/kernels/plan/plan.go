// SPDX-License-Identifier: Apache-2.0

// Package plan is what internal/kernels and the guest that it starts tell each
// other: what to run, and the lines that come back.
package plan

// Paths in the guest.
const (
	// Root stands for the repository's root, File has the [Plan], Bin the
	// plugins.
	Root = "/zipline"
	File = Root + "/plan.json"
	Bin  = Root + "/bin"
	// Dump is where tests explain their failures.
	Dump = Root + "/dump"
	// TestBinary is the name of the tests in a package's directory.
	TestBinary = "tests"
)

// A line of the guest that is not output of a test starts with Mark and one of
// the words.
const (
	Mark   = "zipline-guest:"
	Fact   = "fact"   // name: value
	Begin  = "begin"  // package
	End    = "end"    // package, exit code
	Done   = "done"   // all of the plan was run
	Broken = "broken" // why the plan was not run
)

// Plan is what a guest does.
type Plan struct {
	// Env is added to the environment.
	Env   map[string]string
	Tests []Binary
}

// Binary is one package's tests.
type Binary struct {
	// Package is the directory below the repository's root.
	Package string
	// Args of the test binary.
	Args []string
	// Modules that nothing in the kernel asks for by itself.
	Modules []string
}
