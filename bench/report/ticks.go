// SPDX-License-Identifier: Apache-2.0

// Marks of axes: few, and at round numbers.

package report

import (
	"math"
	"slices"
	"strconv"

	"gonum.org/v1/plot"
)

// logTicks returns marks at the powers of ten, or at closer numbers where fewer than
// three of those are in the range.
func logTicks(low, high float64) plot.ConstantTicks {
	for _, steps := range [][]float64{{1}, {1, 2, 5}, {1, 1.5, 2, 3, 4, 5, 7}, {1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.7, 2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 7, 8, 9}} {
		var ticks plot.ConstantTicks
		for power := math.Floor(math.Log10(low)); power <= math.Log10(high); power++ {
			for _, step := range steps {
				if tick := tickAt(step * math.Pow(10, power)); tick.Value >= low && tick.Value <= high {
					ticks = append(ticks, tick)
				}
			}
		}
		if len(ticks) >= 3 {
			return ticks
		}
	}
	return fewTicks(low, high)
}

// tickAt returns a mark at a number, less what is wrong with its last bits.
func tickAt(number float64) plot.Tick {
	value, _ := strconv.ParseFloat(strconv.FormatFloat(number, 'g', 6, 64), 64) // which is one
	return plot.Tick{Value: value, Label: strconv.FormatFloat(value, 'f', -1, 64)}
}

// fewTicks returns three to five marks at round numbers of a linear axis.
func fewTicks(low, high float64) plot.ConstantTicks {
	power := math.Pow(10, math.Floor(math.Log10(high-low)))
	for _, step := range []float64{2, 1, 0.5, 0.25} {
		var ticks plot.ConstantTicks
		for i := math.Ceil(low / (step * power)); i*step*power <= high; i++ {
			ticks = append(ticks, tickAt(i*step*power))
		}
		if len(ticks) >= 3 {
			return ticks
		}
	}
	return nil
}

// sizeTicks returns marks at sizes. Those have a label that are a factor apart from
// all with a better one: the last and the first, powers of ten, and then the others.
func sizeTicks(sizes []float64, apart float64) plot.ConstantTicks {
	rank := func(size float64) int {
		power := math.Log10(size)
		switch {
		case size == sizes[0] || size == sizes[len(sizes)-1]:
			return 0
		case power == math.Round(power):
			return 1
		default:
			return 2
		}
	}
	byRank := slices.Clone(sizes)
	slices.SortStableFunc(byRank, func(a, b float64) int { return rank(a) - rank(b) })
	var labelled []float64
	var ticks plot.ConstantTicks
	for _, size := range byRank {
		tick := plot.Tick{Value: size}
		if !slices.ContainsFunc(labelled, func(other float64) bool { return max(size/other, other/size) < apart }) {
			tick.Label = strconv.FormatFloat(size, 'f', -1, 64)
			labelled = append(labelled, size)
		}
		ticks = append(ticks, tick)
	}
	return ticks
}
