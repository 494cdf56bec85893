// SPDX-License-Identifier: Apache-2.0

// Figures with a line for each case over the number of endpoints: growth and ADD.

package report

import (
	"cmp"
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

// curve is a line over the number of endpoints.
type curve struct {
	// name stands at its end; empty for none.
	name   string
	colour color.NRGBA
	dashed bool
	points []curvePoint
}

// curvePoint is a point with its interval, which is a point where there is none.
type curvePoint struct{ x, y, low, high float64 }

// curves is a plotter of the curves of a panel.
type curves []curve

// labelGap is the least distance of two labels.
const labelGap = 9 * vg.Length(1)

// Plot draws the curves, then their names, none over another.
func (cs curves) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	for _, tick := range p.Y.Tick.Marker.Ticks(p.Y.Min, p.Y.Max) {
		if !tick.IsMinor() {
			c.StrokeLine2(draw.LineStyle{Color: pale, Width: 0.6}, c.Min.X, y(tick.Value), c.Max.X, y(tick.Value))
		}
	}
	var labels []label
	for i, curve := range cs {
		style := draw.LineStyle{Color: curve.colour, Width: 1.6}
		if curve.dashed {
			style.Width, style.Dashes = 1, []vg.Length{3, 2}
		}
		aside := vg.Length(0)
		if cs.intervals() { // beside each other, to be told apart
			aside = (vg.Length(i) - vg.Length(len(cs)-1)/2) * 2
		}
		var line []vg.Point
		for _, at := range curve.points {
			here := vg.Point{X: x(at.x) + aside, Y: y(at.y)}
			line = append(line, here)
			if at.high > at.low {
				whisker := draw.LineStyle{Color: curve.colour, Width: 0.8}
				c.StrokeLine2(whisker, here.X, y(at.low), here.X, y(at.high))
				c.StrokeLine2(whisker, here.X-2, y(at.low), here.X+2, y(at.low))
				c.StrokeLine2(whisker, here.X-2, y(at.high), here.X+2, y(at.high))
			}
			c.DrawGlyph(draw.GlyphStyle{Color: curve.colour, Radius: 2, Shape: draw.CircleGlyph{}}, here)
		}
		c.StrokeLines(style, line)
		if last := len(line) - 1; last >= 0 && curve.name != "" {
			labels = append(labels, label{curve.name, curve.colour, line[last].Add(vg.Point{X: 6}), line[last].Y})
		}
	}
	spread(labels)
	for _, l := range labels {
		c.FillText(textStyle(8.5, l.colour, text.XLeft), vg.Point{X: l.at.X, Y: l.y}, l.text)
	}
}

// intervals says whether any point has one.
func (cs curves) intervals() bool {
	return slices.ContainsFunc(cs, func(c curve) bool {
		return slices.ContainsFunc(c.points, func(p curvePoint) bool { return p.high > p.low })
	})
}

// label is a text that belongs to a point, and the height that it found.
type label struct {
	text   string
	colour color.NRGBA
	at     vg.Point
	y      vg.Length
}

// spread moves labels apart, upwards and downwards alike, in the order of their points.
func spread(labels []label) {
	slices.SortStableFunc(labels, func(a, b label) int { return cmp.Compare(a.at.Y, b.at.Y) })
	for range 100 { // of small steps, until there are none to make
		moved := false
		for i := 1; i < len(labels); i++ {
			if lacks := labelGap - (labels[i].y - labels[i-1].y); lacks > 0.01 {
				labels[i-1].y -= lacks / 2
				labels[i].y += lacks / 2
				moved = true
			}
		}
		if !moved {
			return
		}
	}
}

// linePanel returns a plot of curves. Its ranges fit them, and their names at the right.
func linePanel(title string, lines curves) *plot.Plot {
	p := newPanel(title)
	p.X.Label.Text = "endpoints on the network"
	p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
	var sizes []float64
	low, high := math.Inf(1), math.Inf(-1)
	for _, c := range lines {
		for _, at := range c.points {
			sizes = append(sizes, at.x)
			low, high = min(low, at.low), max(high, at.high)
		}
	}
	slices.Sort(sizes)
	sizes = slices.Compact(sizes)
	first, last := sizes[0], sizes[len(sizes)-1]
	span := max(last/first, 10)
	p.X.Min, p.X.Max = first/math.Pow(span, 0.04), last*math.Pow(span, 0.25)
	p.X.Tick.Marker = sizeTicks(sizes, math.Pow(p.X.Max/p.X.Min, 0.08))
	margin := max(math.Pow(high/low, 0.08), 1.02)
	p.Y.Min, p.Y.Max = low/margin, high*margin
	p.Y.Tick.Marker = logTicks(p.Y.Min, p.Y.Max)
	p.Add(lines)
	return p
}

// growthFigure shows what connections cost while the network grows.
func (r *Report) growthFigure() (figure, bool) {
	var panels []*plot.Plot
	for _, w := range bench.Workloads {
		var rates, times curves
		for _, s := range r.samples.subjects {
			rate, ratio := curve{name: string(s), colour: r.colour(s)}, curve{name: string(s), colour: r.colour(s)}
			for _, l := range r.Growth {
				if l.Case != s || l.Workload != w || l.Connections != 1 || l.Path != bench.Local {
					continue
				}
				x := float64(l.Endpoints)
				if v, ok := l.Medians[Rate]; ok {
					_, scale := rateUnit(w)
					rate.points = append(rate.points, curvePoint{x, v / scale, v / scale, v / scale})
				}
				if to := l.ToSelf[P50]; to != nil {
					ratio.points = append(ratio.points, curvePoint{x, to.Median, to.Low, to.High})
				} else if _, ok := l.Medians[P50]; ok {
					ratio.points = append(ratio.points, curvePoint{x, 1, 1, 1}) // the first one, to itself
				}
			}
			if len(rate.points) > 0 {
				rates = append(rates, rate)
			}
			if len(ratio.points) > 0 {
				times = append(times, ratio)
			}
		}
		name, _ := rateUnit(w)
		if len(rates) > 0 {
			panels = append(panels, linePanel(fmt.Sprintf("%s, %s", w, name), rates))
		}
		if len(times) > 0 {
			panels = append(panels, linePanel(fmt.Sprintf("%s, p50 to that with the fewest endpoints", w), times))
		}
	}
	if len(panels) == 0 {
		return figure{}, false
	}
	f := figure{
		name: "growth", title: "Connections between two containers while the network grows",
		subtitle: "Left: medians. Right: medians of paired rounds with 95 % intervals, widened by noise. Logarithmic.",
		panels:   grid(panels, 2),
	}
	f.height = headHeight + vg.Length(len(f.panels))*190
	return f, true
}

// attachFigure shows the times of ADD and DEL.
func (r *Report) attachFigure() (figure, bool) {
	var panels []*plot.Plot
	for _, verb := range []string{"ADD", "DEL"} {
		var lines curves
		for _, s := range r.attachSubjects() {
			if s == bench.Control {
				continue // whose network does not grow
			}
			p50, p99 := curve{name: string(s), colour: r.colour(s)}, curve{colour: r.colour(s), dashed: true}
			for _, row := range r.Attach {
				if t, ok := row.Times[s]; ok && row.Verb == verb && row.Endpoints > 0 {
					x := float64(row.Endpoints)
					p50.points = append(p50.points, curvePoint{x, t.P50 * 1e3, t.P50 * 1e3, t.P50 * 1e3})
					p99.points = append(p99.points, curvePoint{x, t.P99 * 1e3, t.P99 * 1e3, t.P99 * 1e3})
				}
			}
			if len(p50.points) > 0 {
				lines = append(lines, p50, p99)
			}
		}
		if len(lines) > 0 {
			panels = append(panels, linePanel(verb+", ms", lines))
		}
	}
	if len(panels) == 0 {
		return figure{}, false
	}
	return figure{
		name: "attach", title: "ADD and DEL by the number of endpoints on the network", height: headHeight + 210,
		subtitle: "One new process from fork to end. Solid: p50; dashed: p99. Logarithmic; below is faster.",
		panels:   grid(panels, 2),
	}, true
}
