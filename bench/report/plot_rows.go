// SPDX-License-Identifier: Apache-2.0

// Figures with a row for each case and a panel for each workload: ratios, rates and
// latency of a path.

package report

import (
	"fmt"
	"image/color"
	"math"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/zipline-cni/zipline/bench"
)

// In points.
const (
	rowHeight   = 12 * vg.Length(1)
	panelMargin = 44 * vg.Length(1)
	barHeight   = 7.5 * vg.Length(1)
)

// row is what one case has in a panel.
type row struct {
	colour color.NRGBA
	// label stands at the right.
	label string
	// ratio, values, or quantiles: one of them.
	ratio     *Ratio // of rates
	values    []float64
	quantiles []float64
}

// rows is a plotter of the rows of a panel, the first one on top. Those that are
// nil stay empty.
type rows struct {
	rows []*row
	// names are written over the marks of the topmost row's quantiles.
	names []string
}

// Plot draws the rows.
func (r rows) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	for i := range r.rows {
		if i%2 == 1 {
			bar(c, shadow, c.Min.X, c.Max.X, y(r.at(i)), rowHeight)
		}
	}
	for _, tick := range p.X.Tick.Marker.Ticks(p.X.Min, p.X.Max) {
		if !tick.IsMinor() {
			c.StrokeLine2(draw.LineStyle{Color: pale, Width: 0.6}, x(tick.Value), c.Min.Y, x(tick.Value), c.Max.Y)
		}
	}
	if slices.ContainsFunc(r.rows, func(row *row) bool { return row != nil && row.ratio != nil }) {
		c.StrokeLine2(draw.LineStyle{Color: quiet, Width: 0.8}, x(1), c.Min.Y, x(1), c.Max.Y)
	}
	named := false
	for i, row := range r.rows {
		if row == nil {
			continue
		}
		at := y(r.at(i))
		switch {
		case row.ratio != nil:
			drawRatio(c, x, at, row)
		case row.values != nil:
			drawBox(c, x, at, row)
		default:
			drawQuantiles(c, x, at, row)
			if !named {
				r.drawNames(c, x, at, row)
				named = true
			}
		}
		c.FillText(textStyle(8, ink, text.XRight), vg.Point{X: c.Max.X, Y: at + 1.2}, row.label)
	}
}

// at returns the place of a row on the axis.
func (r rows) at(i int) float64 { return float64(len(r.rows) - 1 - i) }

// bar fills a rectangle around a height.
func bar(c draw.Canvas, fill color.Color, from, to, at, height vg.Length) {
	c.FillPolygon(fill, []vg.Point{
		{X: from, Y: at - height/2}, {X: to, Y: at - height/2}, {X: to, Y: at + height/2}, {X: from, Y: at + height/2},
	})
}

// drawRatio draws a bar from 1 to the ratio, with its interval. It is pale where
// the interval shows nothing.
func drawRatio(c draw.Canvas, x func(float64) vg.Length, at vg.Length, r *row) {
	fill := r.colour
	if r.ratio.Verdict(Rate) == NotShown {
		fill = lighter(fill)
	}
	bar(c, fill, x(1), x(r.ratio.Median), at, barHeight)
	low, high := x(r.ratio.Low), x(r.ratio.High)
	// With a white edge, to be seen on a dark bar.
	for _, line := range []draw.LineStyle{{Color: color.White, Width: 2}, {Color: ink, Width: 0.8}} {
		c.StrokeLine2(line, low, at, high, at)
		for _, end := range []vg.Length{low, high} {
			c.StrokeLine2(line, end, at-2, end, at+2)
		}
	}
}

// drawBox draws all values as dots, the middle half of them as a box, and the median.
func drawBox(c draw.Canvas, x func(float64) vg.Length, at vg.Length, r *row) {
	bar(c, lighter(r.colour), x(bench.Quantile(r.values, 0.25)), x(bench.Quantile(r.values, 0.75)), at, barHeight)
	for i, v := range r.values {
		// In three lanes, so that equal values are seen to be many.
		lane := vg.Length(i%3-1) * 2
		c.DrawGlyph(draw.GlyphStyle{Color: r.colour, Radius: 0.9, Shape: draw.CircleGlyph{}}, vg.Point{X: x(v), Y: at + lane})
	}
	middle := x(bench.Median(r.values))
	c.StrokeLine2(draw.LineStyle{Color: ink, Width: 1.4}, middle, at-barHeight/2-0.5, middle, at+barHeight/2+0.5)
}

// marks of the quantiles, smaller the rarer they are.
var marks = []draw.GlyphStyle{
	{Radius: 3, Shape: draw.CircleGlyph{}}, {Radius: 2.4, Shape: draw.BoxGlyph{}}, {Radius: 2.2, Shape: draw.PyramidGlyph{}},
}

func drawQuantiles(c draw.Canvas, x func(float64) vg.Length, at vg.Length, r *row) {
	last := len(r.quantiles) - 1
	c.StrokeLine2(draw.LineStyle{Color: lighter(r.colour), Width: 2.5}, x(r.quantiles[0]), at, x(r.quantiles[last]), at)
	for i, q := range r.quantiles {
		mark := marks[i]
		mark.Color = r.colour
		c.DrawGlyph(mark, vg.Point{X: x(q), Y: at})
	}
}

// drawNames says over a row what its marks are.
func (r rows) drawNames(c draw.Canvas, x func(float64) vg.Length, at vg.Length, row *row) {
	for i, q := range row.quantiles {
		c.FillText(textStyle(6.5, quiet, text.XCenter), vg.Point{X: x(q), Y: at + rowHeight/2 + 2}, r.names[i])
	}
}

// panelOf returns a plot with the rows of the cases, with their names if it is the
// first of its line. The range leaves room for labels at the right.
func panelOf(title string, cases []bench.Subject, named bool, content rows, low, high float64) *plot.Plot {
	p := newPanel(title)
	p.X.Min, p.X.Max = low, high
	p.Y.Min, p.Y.Max = -0.6, float64(len(cases))-0.4
	var names plot.ConstantTicks
	for i, s := range cases {
		label := ""
		if named {
			label = string(s)
		}
		names = append(names, plot.Tick{Value: content.at(i), Label: label})
	}
	p.Y.Tick.Marker = names
	p.Y.Tick.Length, p.Y.LineStyle.Width = 0, 0
	p.Add(content)
	return p
}

// grid arranges panels in lines of so many.
func grid(panels []*plot.Plot, columns int) [][]*plot.Plot {
	var lines [][]*plot.Plot
	for line := range slices.Chunk(panels, columns) {
		for len(line) < columns {
			line = append(slices.Clip(line), nil)
		}
		lines = append(lines, line)
	}
	return lines
}

// rowsHeight is the height of a figure with so many lines of panels.
func rowsHeight(lines, cases int) vg.Length {
	return headHeight + vg.Length(lines)*(panelMargin+vg.Length(cases)*rowHeight) + 10
}

// ratioTicks returns marks that are evenly readable around 1.
func ratioTicks(low, high float64) plot.ConstantTicks {
	var ticks plot.ConstantTicks
	var candidates []float64
	switch span := high / low; {
	case span < 1.8:
		candidates = []float64{0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.25, 1.5}
	case span < 3.2:
		candidates = []float64{0.4, 0.5, 0.6, 0.8, 1, 1.25, 1.5, 2, 2.5}
	case span < 5:
		candidates = []float64{0.25, 0.5, 0.7, 1, 1.5, 2, 3, 4}
	case span < 50:
		candidates = []float64{0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20}
	default:
		candidates = []float64{0.001, 0.01, 0.1, 1, 10, 100, 1000}
	}
	for _, v := range candidates {
		if v >= low && v <= high {
			ticks = append(ticks, plot.Tick{Value: v, Label: fmt.Sprint(v)})
		}
	}
	return ticks
}

// ratioFigure shows rates of a path as ratios to a reference, with one connection.
func (r *Report) ratioFigure(path bench.Path, to bench.Subject) (figure, bool) {
	lines := r.single(path, func(l *Line) bool { return l.Case != loopback && l.ratioTo(to, Rate) != nil })
	low, high := 1.0, 1.0
	for _, l := range lines {
		ratio := l.ratioTo(to, Rate)
		low, high = min(low, ratio.Low), max(high, ratio.High)
	}
	low, high = low/1.04, high*1.04
	ticks := ratioTicks(low, high)
	high *= math.Pow(high/low, 0.34) // for the labels
	return r.rowFigure(figure{
		name:  fmt.Sprintf("ratios-to-%s-%s", slug(string(to)), slug(string(path))),
		title: fmt.Sprintf("Rates as ratios to %s, %s", to, path),
		subtitle: "Median of paired rounds with 95 % interval, widened by noise; logarithmic; right is faster. " +
			"Pale: no difference shown.",
	}, lines, func(cell Cell, cases []bench.Subject, named bool) *plot.Plot {
		content := rows{rows: make([]*row, len(cases))}
		for j, s := range cases {
			if ratio := r.Line(cell, s).ratioTo(to, Rate); ratio != nil {
				content.rows[j] = &row{colour: r.colour(s), label: fmt.Sprintf("%.2f", ratio.Median), ratio: ratio}
			}
		}
		p := panelOf(string(cell.Workload), cases, named, content, low, high)
		p.X.Scale = plot.LogScale{}
		p.X.Tick.Marker = ticks
		return p
	})
}

// columnsFor returns how many panels are beside each other: no more than can be read,
// and no fewer than make a panel of a usual width.
func columnsFor(cells []Cell) int { return min(4, max(len(cells), 2)) }

// loopback is the case whose ratios would dwarf all others.
const loopback bench.Subject = "loopback"

// only returns those cases that are present, in their order.
func (r *Report) only(present map[bench.Subject]bool) []bench.Subject {
	return slices.DeleteFunc(slices.Clone(r.samples.subjects), func(s bench.Subject) bool { return !present[s] })
}

// rateFigure shows the rate of each round of a path, with one connection.
func (r *Report) rateFigure(path bench.Path) (figure, bool) {
	return r.valueFigure(path, Rate, figure{
		name:     "rates-" + slug(string(path)),
		title:    fmt.Sprintf("Rates of all rounds, %s", path),
		subtitle: "A dot is a round, the box the middle half of them, the line their median, which the label gives; right is faster.",
	}, func(l *Line) *row {
		_, scale := rateUnit(l.Workload)
		var values []float64
		for _, v := range valuesOf(r.samples.valid(l.Cell, l.Case), Rate) {
			values = append(values, v.Value/scale)
		}
		return &row{label: digits(bench.Median(values)), values: values}
	})
}

// latencyFigure shows quantiles of the latency of a path, with one connection.
func (r *Report) latencyFigure(path bench.Path) (figure, bool) {
	return r.valueFigure(path, P50, figure{
		name:     "latency-" + slug(string(path)),
		title:    fmt.Sprintf("Latency, %s", path),
		subtitle: "Medians over the rounds of each round's quantiles; the label is the p99; logarithmic; left is faster.",
	}, func(l *Line) *row {
		quantiles := []float64{l.Medians[P50] * 1e6, l.Medians[P99] * 1e6, l.P999 * 1e6}
		return &row{label: digits(quantiles[1]), quantiles: quantiles}
	})
}

// valueFigure makes a figure of the lines of a path that have a measure.
func (r *Report) valueFigure(path bench.Path, m Measure, f figure, content func(*Line) *row) (figure, bool) {
	lines := r.single(path, func(l *Line) bool { _, ok := l.Medians[m]; return ok })
	return r.rowFigure(f, lines, func(cell Cell, cases []bench.Subject, named bool) *plot.Plot {
		return r.valuePanel(cell, cases, m, named, content)
	})
}

// single returns the lines of a path with one connection that are wanted.
func (r *Report) single(path bench.Path, wanted func(*Line) bool) []Line {
	return slices.DeleteFunc(slices.Clone(r.Lines), func(l Line) bool { return l.Path != path || l.Connections != 1 || !wanted(&l) })
}

// rowFigure completes a figure of lines by a panel for each of their cells, with a
// row for each of their cases.
func (r *Report) rowFigure(f figure, lines []Line, panel func(cell Cell, cases []bench.Subject, named bool) *plot.Plot) (figure, bool) {
	var cells []Cell
	present := map[bench.Subject]bool{}
	for _, l := range lines {
		if !slices.Contains(cells, l.Cell) {
			cells = append(cells, l.Cell)
		}
		present[l.Case] = true
	}
	if len(cells) == 0 {
		return figure{}, false
	}
	columns := columnsFor(cells)
	cases := r.only(present)
	var panels []*plot.Plot
	for i, cell := range cells {
		panels = append(panels, panel(cell, cases, i%columns == 0))
	}
	f.panels = grid(panels, columns)
	f.height = rowsHeight(len(f.panels), len(cases))
	return f, true
}

// valuePanel makes the panel of one cell.
func (r *Report) valuePanel(cell Cell, cases []bench.Subject, m Measure, named bool, content func(*Line) *row) *plot.Plot {
	all := rows{rows: make([]*row, len(cases)), names: []string{"p50", "p99", "p99.9"}}
	low, high := math.Inf(1), math.Inf(-1)
	for j, s := range cases {
		l := r.Line(cell, s)
		if l == nil {
			continue
		}
		if _, ok := l.Medians[m]; !ok {
			continue
		}
		row := content(l)
		row.colour = r.colour(s)
		all.rows[j] = row
		for _, v := range slices.Concat(row.values, row.quantiles) {
			low, high = min(low, v), max(high, v)
		}
	}
	// Marks end where the labels at the right begin.
	if m == Rate {
		name, _ := rateUnit(cell.Workload)
		span := max(high-low, high*0.02)
		low, high = max(0, low-span*0.05), high+span*0.05
		p := panelOf(fmt.Sprintf("%s, %s", cell.Workload, name), cases, named, all, low, high+span*0.33)
		p.X.Tick.Marker = fewTicks(low, high)
		return p
	}
	low, high = low/1.15, high*1.15
	p := panelOf(fmt.Sprintf("%s, µs", cell.Workload), cases, named, all, low, high*math.Pow(high/low, 0.2))
	p.X.Scale = plot.LogScale{}
	p.X.Tick.Marker = logTicks(low, high)
	return p
}
