// SPDX-License-Identifier: Apache-2.0

// Command ziplinectl shows and steers what zipline has on a node. See docs/cli.md.
package main

import (
	"io"
	"os"

	"golang.org/x/term"
)

// release is set by the linker.
var release = "dev"

func main() {
	terminal := isTerminal(os.Stdout) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	os.Exit(run(os.Args[1:], streams{out: os.Stdout, err: os.Stderr, terminal: terminal}))
}

func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}
