// SPDX-License-Identifier: Apache-2.0

package archtest

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zipline-cni/zipline/internal/testutil"
)

// Limits in lines. Tables of test cases are not functions, but data.
const (
	maxGoFile  = 400
	maxCHeader = 250
	maxFunc    = 80
)

func TestFilesAndFunctionsStaySmall(t *testing.T) {
	root := testutil.RepoRoot(t)
	cmd := exec.Command("git", "ls-files", "*.go", "bpf/lib/*.h")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("list files: %v", err)
	}
	for _, name := range strings.Fields(string(out)) {
		text, err := os.ReadFile(filepath.Join(root, name))
		if os.IsNotExist(err) {
			continue // deleted, not yet committed
		}
		if err != nil {
			t.Fatalf("read %s: %v", name, err)
		}
		if bytes.Contains(text, []byte("DO NOT EDIT")) {
			continue
		}
		lines := bytes.Count(text, []byte("\n"))
		if strings.HasSuffix(name, ".h") {
			if lines > maxCHeader {
				t.Errorf("%s has %d lines, more than %d", name, lines, maxCHeader)
			}
			continue
		}
		if lines > maxGoFile {
			t.Errorf("%s has %d lines, more than %d", name, lines, maxGoFile)
		}
		checkFunctions(t, name, text)
	}
}

func checkFunctions(t *testing.T, name string, text []byte) {
	t.Helper()
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, name, text, 0)
	if err != nil {
		t.Fatalf("parse %s: %v", name, err)
	}
	for _, decl := range file.Decls {
		f, ok := decl.(*ast.FuncDecl)
		if !ok || strings.HasPrefix(f.Name.Name, "Test") {
			continue // a test's length is its table
		}
		lines := files.Position(f.End()).Line - files.Position(f.Pos()).Line + 1
		if lines > maxFunc {
			t.Errorf("%s: %s has %d lines, more than %d", name, f.Name.Name, lines, maxFunc)
		}
	}
}
