// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"encoding/xml"
	"errors"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"gonum.org/v1/plot/vg"

	"github.com/zipline-cni/zipline/bench"
)

// What the page shows is there, is a picture, and is the same every time.
func TestWholeReportIsWritten(t *testing.T) {
	results := smallWhole()
	first, second := t.TempDir(), filepath.Join(t.TempDir(), "made", "anew")
	for _, dir := range []string{first, second} {
		if err := WriteAll(dir, results); err != nil {
			t.Fatal(err)
		}
	}
	page, err := os.ReadFile(filepath.Join(first, PageFile))
	if err != nil {
		t.Fatal(err)
	}
	shown := regexp.MustCompile(`\]\(([a-z0-9-]+)\.svg\)`).FindAllStringSubmatch(string(page), -1)
	if len(shown) != 10 { // two paths with four each, growth, and ADD
		t.Errorf("the page shows %d pictures", len(shown))
	}
	for _, name := range shown {
		svg, err := os.ReadFile(filepath.Join(first, name[1]+".svg"))
		if err != nil {
			t.Fatal(err)
		}
		checkXML(t, svg)
		picture, err := os.ReadFile(filepath.Join(first, name[1]+".png"))
		if err != nil {
			t.Fatal(err)
		}
		image, err := png.Decode(bytes.NewReader(picture))
		if err != nil {
			t.Fatal(err)
		}
		if size := image.Bounds().Size(); size.X < 1000 || size.Y < 300 {
			t.Errorf("%s.png has %v pixels", name[1], size)
		}
	}
	files, err := os.ReadDir(first)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 2*len(shown)+2 {
		t.Errorf("%d files for %d pictures, a page and results", len(files), len(shown))
	}
	for _, f := range files {
		a, errA := os.ReadFile(filepath.Join(first, f.Name()))
		b, errB := os.ReadFile(filepath.Join(second, f.Name()))
		if err := errors.Join(errA, errB); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a, b) {
			t.Errorf("%s differs from one time to the next", f.Name())
		}
	}
}

func checkXML(t *testing.T, text []byte) {
	t.Helper()
	decoder := xml.NewDecoder(bytes.NewReader(text))
	elements := 0
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if start, ok := token.(xml.StartElement); ok {
			if elements == 0 && start.Name.Local != "svg" {
				t.Errorf("root element %s", start.Name.Local)
			}
			elements++
		}
	}
	if elements < 50 || bytes.Contains(text, []byte("NaN")) || bytes.Contains(text, []byte("Inf")) {
		t.Errorf("%d elements:\n%.300s", elements, text)
	}
}

func TestFigureSaysWhatItShows(t *testing.T) {
	r := New(smallWhole())
	for _, f := range r.figures() {
		var out bytes.Buffer
		if err := f.writeSVG(&out); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{f.title, ">bridge", "sans-serif"} {
			if want == ">bridge" && strings.HasPrefix(f.name, "ratios-to-bridge") {
				want = ">bridge-nf0<" // the bridge itself is the line at 1
			}
			if !strings.Contains(out.String(), want) {
				t.Errorf("%s has no %q", f.name, want)
			}
		}
	}
}

func TestEveryCaseHasAColourOfItsOwn(t *testing.T) {
	results := one(ordinary().rates).results()
	results.Cases = append(results.Cases, bench.Case{Name: "theirs"}, bench.Case{Name: "ours"})
	r := New(results)
	seen := map[any]bench.Subject{}
	for _, s := range r.samples.subjects {
		c := r.colour(s)
		if other, taken := seen[c]; taken {
			t.Errorf("%s and %s have the same colour", s, other)
		}
		seen[c] = s
	}
}

func TestLabelsAreSpread(t *testing.T) {
	labels := []label{{at: vg.Point{Y: 51}, y: 51, text: "c"}, {at: vg.Point{Y: 50}, y: 50, text: "b"}, {at: vg.Point{Y: 49}, y: 49, text: "a"}, {at: vg.Point{Y: 90}, y: 90, text: "d"}}
	spread(labels)
	order := ""
	for i, l := range labels {
		order += l.text
		if i > 0 && l.y-labels[i-1].y < labelGap-0.1 {
			t.Errorf("labels %v apart", l.y-labels[i-1].y)
		}
	}
	if order != "abcd" || labels[3].y != 90 {
		t.Errorf("order %s, the far one at %v", order, labels[3].y)
	}
}

func TestSizesThatMatterHaveLabels(t *testing.T) {
	labels := map[float64]string{}
	for _, tick := range sizeTicks([]float64{1, 100, 500, 1000, 2000, 4000}, 2.1) {
		labels[tick.Value] = tick.Label
	}
	for size, want := range map[float64]string{1: "1", 100: "100", 500: "", 1000: "1000", 2000: "", 4000: "4000"} {
		if got, known := labels[size]; got != want || !known {
			t.Errorf("label of %v: %q; want %q", size, got, want)
		}
	}
}

func TestMarksOfAxesAreFewAndRound(t *testing.T) {
	labels := func(low, high float64, log bool) string {
		ticks := fewTicks(low, high)
		if log {
			ticks = logTicks(low, high)
		}
		var texts []string
		for _, tick := range ticks {
			texts = append(texts, tick.Label)
		}
		return strings.Join(texts, " ")
	}
	for _, c := range []struct {
		low, high float64
		log       bool
		want      string
	}{
		{0, 103, false, "0 50 100"}, {36.2, 41.3, false, "37 38 39 40 41"}, {0.2, 1.1, false, "0.2 0.4 0.6 0.8 1"},
		{8, 130, true, "10 20 50 100"}, {0.9, 1200, true, "1 10 100 1000"}, {6.5, 14, true, "7 8 9 10 11 12 13 14"},
	} {
		if got := labels(c.low, c.high, c.log); got != c.want {
			t.Errorf("marks of %v to %v: %s; want %s", c.low, c.high, got, c.want)
		}
	}
}
