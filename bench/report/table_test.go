// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// root is the repository's, from this package.
const root = "../.."

func TestTableIsAsItWas(t *testing.T) { golden(t, "table.md", []byte(New(whole()).Table())) }

func TestTableGoesBetweenTheMarkers(t *testing.T) {
	dir := t.TempDir()
	readme, results := filepath.Join(dir, "README.md"), filepath.Join(dir, "bench", ResultsFile)
	if err := errors.Join(os.Mkdir(filepath.Dir(results), 0o700), os.WriteFile(results, jsonOf(t, smallWhole()), 0o600)); err != nil {
		t.Fatal(err)
	}
	const before, after = "# Title\n\ntext\n\n", "\n\nmore text\n"
	if err := os.WriteFile(readme, []byte(before+"<!-- zipline-bench table -->\nold\n<!-- end of zipline-bench table -->"+after), 0o600); err != nil {
		t.Fatal(err)
	}
	want := before + "<!-- zipline-bench table bench/results.json -->\n" + New(smallWhole()).Table() + "\n<!-- end of zipline-bench table -->" + after
	for range 2 { // the second time changes nothing
		if err := WriteTable(readme, results); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(readme); err != nil || string(got) != want {
			t.Errorf("%v: page is now\n%s\nwant\n%s", err, got, want)
		}
	}
}

func TestPageWithoutMarkersIsLeftAsItIs(t *testing.T) {
	dir := t.TempDir()
	results := filepath.Join(dir, ResultsFile)
	if err := os.WriteFile(results, jsonOf(t, tiny()), 0o600); err != nil {
		t.Fatal(err)
	}
	readme := filepath.Join(dir, "README.md")
	for _, text := range []string{
		"no markers\n", "<!-- zipline-bench table -->\nno end\n", "<!-- end of zipline-bench table -->\n<!-- zipline-bench table -->\n",
		"`<!-- zipline-bench table -->` in a sentence\n<!-- end of zipline-bench table -->\n",
	} {
		if err := os.WriteFile(readme, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := WriteTable(readme, results); !errors.Is(err, ErrNoMarkers) {
			t.Errorf("%q: %v", text, err)
		}
		if got, err := os.ReadFile(readme); err != nil || string(got) != text {
			t.Errorf("%q is now %q, %v", text, got, err)
		}
	}
}

// The README's figures are those of the file that it names, or nobody's.
func TestTableOfTheReadmeIsThatOfItsResults(t *testing.T) {
	committed, err := filepath.Glob(filepath.Join(root, "bench", "results", "*", ResultsFile))
	if err != nil {
		t.Fatal(err)
	}
	if len(committed) == 0 {
		t.Skip("no results are committed yet")
	}
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	begin := tableBegin.FindSubmatch(text)
	if begin == nil || len(begin[1]) == 0 {
		t.Fatalf("README.md has no table of any results, though %s is there", committed[0])
	}
	name := string(begin[1])
	if !strings.HasPrefix(name, "bench/results/") {
		t.Errorf("the table is of %s, which is not among the committed results", name)
	}
	results, err := ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	want, err := insertTable(text, New(results).Table(), name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(text, want) {
		t.Errorf("the table is not that of %s: zipline-bench table %s -readme README.md", name, name)
	}
}
