// SPDX-License-Identifier: Apache-2.0

// What all figures have in common: sizes, colours, and the files they are written to.

package report

import (
	"bytes"
	"fmt"
	"image/color"
	"image/png"
	"io"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"

	"github.com/zipline-cni/zipline/bench"
)

// figure is a picture of the page.
type figure struct {
	// name of its files, less their ending.
	name string
	// title stands over it, and subtitle says how to read it.
	title, subtitle string
	height          vg.Length
	// panels by row; one that is nil stays empty.
	panels [][]*plot.Plot
}

const (
	figureWidth = 680 * vg.Length(1) // points, as all lengths are
	headHeight  = 38 * vg.Length(1)
	// resolution of a PNG in dots per inch.
	resolution = 144
)

var (
	ink    = color.NRGBA{0x22, 0x22, 0x22, 0xff}
	quiet  = color.NRGBA{0x66, 0x66, 0x66, 0xff}
	pale   = color.NRGBA{0xe4, 0xe4, 0xe4, 0xff}
	shadow = color.NRGBA{0xf6, 0xf6, 0xf6, 0xff}
)

// colours of the cases, from the palette of Okabe and Ito, which readers with any
// kind of colour vision can tell apart. The plugin under test is blue and green,
// BIG TCP a darker shade of the same; what was there before is red and orange; the
// limits are grey.
var colours = map[bench.Subject]color.NRGBA{
	loopback: {0xc4, 0xc4, 0xc4, 0xff}, bench.Wire: {0x70, 0x70, 0x70, 0xff}, bench.WireAgain: {0xa6, 0xa6, 0xa6, 0xff},
	bench.Bridge: {0xd5, 0x5e, 0x00, 0xff}, "bridge-nf0": {0xe6, 0x9f, 0x00, 0xff}, "bridge-nft": {0xcc, 0x79, 0xa7, 0xff},
	"ptp":        {0xb8, 0xa6, 0x1c, 0xff},
	bench.Kernel: {0x00, 0x9e, 0x73, 0xff}, big(bench.Kernel): {0x00, 0x5f, 0x45, 0xff},
	bench.Direct: {0x00, 0x72, 0xb2, 0xff}, big(bench.Direct): {0x00, 0x45, 0x6b, 0xff},
	bench.Tracked: {0x56, 0xb4, 0xe9, 0xff}, big(bench.Tracked): {0x2b, 0x7c, 0xa8, 0xff},
	bench.Zipline: {0x00, 0x72, 0xb2, 0xff}, bench.Control: {0x56, 0xb4, 0xe9, 0xff},
}

// spare are the colours of cases that users have added, in their order.
var spare = []color.NRGBA{
	{0x88, 0x22, 0x55, 0xff}, {0x99, 0x99, 0x33, 0xff}, {0x44, 0xaa, 0x99, 0xff}, {0xaa, 0x44, 0x99, 0xff}, {0x66, 0x11, 0x00, 0xff},
}

// colour returns that of a case, in every figure the same.
func (r *Report) colour(s bench.Subject) color.NRGBA {
	if c, known := colours[s]; known {
		return c
	}
	added := slices.DeleteFunc(slices.Clone(r.samples.subjects), func(s bench.Subject) bool { _, known := colours[s]; return known })
	return spare[max(0, slices.Index(added, s))%len(spare)]
}

// lighter returns a colour for what is only a shade of the thing itself.
func lighter(c color.NRGBA) color.NRGBA {
	mix := func(v uint8) uint8 { return uint8(255 - (255-int(v))*35/100) }
	return color.NRGBA{mix(c.R), mix(c.G), mix(c.B), c.A}
}

// textStyle returns one of the sans-serif font.
func textStyle(size vg.Length, c color.Color, x text.XAlignment) text.Style {
	return text.Style{
		Color: c, Font: font.From(font.Font{Typeface: "Liberation", Variant: "Sans"}, size),
		XAlign: x, YAlign: text.YCenter, Handler: plot.DefaultTextHandler,
	}
}

// newPanel returns an empty plot in the style of all of them.
func newPanel(title string) *plot.Plot {
	p := plot.New()
	p.Title.Text = title
	p.Title.TextStyle = textStyle(9.5, ink, text.XCenter)
	p.Title.TextStyle.YAlign = text.YTop
	p.Title.Padding = 3
	for _, axis := range []*plot.Axis{&p.X, &p.Y} {
		axis.Tick.Label = textStyle(8, ink, text.XCenter)
		axis.LineStyle = draw.LineStyle{Color: pale, Width: 0.6}
		axis.Tick.LineStyle = axis.LineStyle
		axis.Tick.Length = 2
		axis.Padding = 2
	}
	p.X.Label.TextStyle = textStyle(8, quiet, text.XCenter)
	p.X.Label.TextStyle.YAlign = text.YBottom
	p.X.Tick.Label.YAlign = text.YTop
	p.Y.Tick.Label.XAlign = text.XRight
	return p
}

// draw puts the figure on a canvas.
func (f figure) draw(c draw.Canvas) {
	c.SetColor(color.White)
	c.Fill(c.Rectangle.Path())
	c.FillText(textStyle(12, ink, text.XLeft), vg.Point{X: 8, Y: f.height - 12}, f.title)
	c.FillText(textStyle(8.5, quiet, text.XLeft), vg.Point{X: 8, Y: f.height - 27}, f.subtitle)
	tiles := draw.Tiles{
		Rows: len(f.panels), Cols: len(f.panels[0]), PadX: 10, PadY: 12, PadLeft: 8, PadRight: 8, PadBottom: 6,
	}
	canvases := plot.Align(f.panels, tiles, draw.Crop(c, 0, 0, 0, -headHeight))
	for j, row := range f.panels {
		for i, p := range row {
			if p != nil {
				p.Draw(canvases[j][i])
			}
		}
	}
}

// writeSVG writes the figure for a page.
func (f figure) writeSVG(w io.Writer) error {
	canvas := vgsvg.New(figureWidth, f.height)
	f.draw(draw.New(canvas))
	var out bytes.Buffer
	if _, err := canvas.WriteTo(&out); err != nil {
		return fmt.Errorf("write %s.svg: %w", f.name, err)
	}
	// Who does not have this font has one with letters of the same width.
	svg := strings.ReplaceAll(out.String(), "font-family:Liberation Sans;", "font-family:Liberation Sans,Arimo,Arial,Helvetica,sans-serif;")
	if _, err := io.WriteString(w, svg); err != nil {
		return fmt.Errorf("write %s.svg: %w", f.name, err)
	}
	return nil
}

// writePNG writes the figure for those who can't show the other.
func (f figure) writePNG(w io.Writer) error {
	canvas := vgimg.NewWith(vgimg.UseWH(figureWidth, f.height), vgimg.UseDPI(resolution))
	f.draw(draw.New(canvas))
	if err := png.Encode(w, canvas.Image()); err != nil {
		return fmt.Errorf("write %s.png: %w", f.name, err)
	}
	return nil
}

// slug makes the name of a file of words.
func slug(words string) string {
	return strings.Trim(strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		default:
			return '-'
		}
	}, words), "-")
}
