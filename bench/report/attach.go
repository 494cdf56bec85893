// SPDX-License-Identifier: Apache-2.0

// What attaching and detaching cost.

package report

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/zipline-cni/zipline/bench"
)

// AttachRow is ADD or DEL with a number of endpoints present; in parallel, of that many.
type AttachRow struct {
	Phase     bench.Phase
	Endpoints int
	Verb      string
	// Times of each subject that took part.
	Times map[bench.Subject]AttachTimes
	// ToBridge are the ratios of times to the bridge's; see [Ratio]. There is no
	// second bridge, so nothing widens them.
	ToBridge map[bench.Subject]*Ratio
	// pairs are the ratios behind those.
	pairs map[bench.Subject][]float64
}

// AttachTimes are quantiles in seconds, of Count times.
type AttachTimes struct {
	P50, P99 float64
	Count    int
}

func newAttachRows(r *bench.Results, phase bench.Phase) []AttachRow {
	times := map[attachKey]map[bench.Subject][]bench.Keyed[pair]{}
	for _, s := range r.Attach {
		if s.Phase != phase || s.Seconds == 0 {
			continue
		}
		key := attachKey{s.Verb, s.Endpoints}
		if times[key] == nil {
			times[key] = map[bench.Subject][]bench.Keyed[pair]{}
		}
		times[key][s.Subject] = append(times[key][s.Subject], bench.Keyed[pair]{Key: s.Round, Value: s.Seconds})
	}
	var rows []AttachRow
	for key, of := range times {
		rows = append(rows, newAttachRow(phase, key, of, r.Seed))
	}
	slices.SortFunc(rows, func(a, b AttachRow) int {
		return cmp.Or(cmp.Compare(a.Verb, b.Verb), cmp.Compare(a.Endpoints, b.Endpoints))
	})
	return rows
}

// attachKey is a row of a phase.
type attachKey struct {
	verb      string
	endpoints int
}

func newAttachRow(phase bench.Phase, key attachKey, times map[bench.Subject][]bench.Keyed[pair], seed uint64) AttachRow {
	row := AttachRow{
		Phase: phase, Endpoints: key.endpoints, Verb: key.verb, Times: map[bench.Subject]AttachTimes{},
		ToBridge: map[bench.Subject]*Ratio{}, pairs: map[bench.Subject][]float64{},
	}
	for subject, of := range times {
		var seconds []float64
		for _, v := range of {
			seconds = append(seconds, v.Value)
		}
		row.Times[subject] = AttachTimes{bench.Median(seconds), bench.Quantile(seconds, 0.99), len(seconds)}
		if ratios := bench.PairedRatios(of, times[bench.Bridge]); len(ratios) > 0 && subject != bench.Bridge {
			ratio := newRatio(bench.EstimateMedian(ratios, seed), 0)
			row.ToBridge[subject], row.pairs[subject] = &ratio, ratios
		}
	}
	return row
}

// String returns words for a reader.
func (r AttachRow) String() string {
	if r.Phase == bench.PhaseParallel {
		return fmt.Sprintf("%d times %s in parallel", r.Endpoints, r.Verb)
	}
	return fmt.Sprintf("%s with %d endpoints", r.Verb, r.Endpoints)
}

// attachSubjects returns who was attached by, in the order of the samples.
func (r *Report) attachSubjects() []bench.Subject {
	var subjects []bench.Subject
	for _, s := range r.Results.Attach {
		if !slices.Contains(subjects, s.Subject) {
			subjects = append(subjects, s.Subject)
		}
	}
	return subjects
}
