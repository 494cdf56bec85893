// SPDX-License-Identifier: Apache-2.0

// The samples of ADD and DEL.

package bench

// Subject is who was measured.
type Subject string

// The subjects of a run.
const (
	// Zipline is the plugin under test, in a node that grows.
	Zipline Subject = "zipline"
	// Bridge is the reference plugin, in a node that grows alike.
	Bridge Subject = "bridge"
	// PTP is the reference plugin without a bridge, in a node that grows alike.
	PTP Subject = "ptp"
	// Control is the plugin under test in a node that always has
	// [ControlEndpoints].
	Control Subject = "control"
)

// ControlEndpoints is the size of the network that growth is compared with.
const ControlEndpoints = 10

// Phase is the part of a run that a sample belongs to.
type Phase string

// The phases of a run, in their order.
const (
	// PhaseFirst is the first ADD on a fresh node.
	PhaseFirst Phase = "first"
	// PhaseParallel is [Options.Burst] executions, several at a time; the
	// sample is the time from the first one's start to the last one's end.
	PhaseParallel Phase = "parallel"
	// PhasePaired is one execution with a number of endpoints present.
	PhasePaired Phase = "paired"
)

// Sample is one measurement.
type Sample struct {
	Phase   Phase   `json:"phase"`
	Subject Subject `json:"subject"`
	Verb    string  `json:"verb"`
	// Endpoints is how many endpoints the growing nodes had; for PhaseParallel
	// how many ADDs or DELs there were.
	Endpoints int `json:"endpoints"`
	// Round numbers the rounds of a phase and number of endpoints. Samples that
	// differ in nothing but their subject are a pair.
	Round int `json:"round"`
	// Seconds from before the fork to after the end.
	Seconds float64 `json:"seconds"`
	// CPU seconds of the process and its children; 0 for PhaseParallel.
	CPU float64 `json:"cpu"`
	// MaxRSS is the peak memory in bytes; 0 for PhaseParallel.
	MaxRSS int64 `json:"maxRSS"`
}

type pairKey struct {
	phase            Phase
	verb             string
	endpoints, round int
}

func (s Sample) key() pairKey { return pairKey{s.Phase, s.Verb, s.Endpoints, s.Round} }

// selectSamples returns the samples of a subject in one cell of the table.
func selectSamples(all []Sample, phase Phase, subject Subject, verb string, endpoints int) []Sample {
	var found []Sample
	for _, s := range all {
		if s.Phase == phase && s.Subject == subject && s.Verb == verb && s.Endpoints == endpoints {
			found = append(found, s)
		}
	}
	return found
}

// seconds returns the samples' times.
func seconds(samples []Sample) []float64 {
	out := make([]float64, 0, len(samples))
	for _, s := range samples {
		out = append(out, s.Seconds)
	}
	return out
}

// ratios divides each sample of a by its pair in b, and leaves out the ones
// without a pair.
func ratios(a, b []Sample) []float64 {
	keyed := func(samples []Sample) []Keyed[pairKey] {
		var out []Keyed[pairKey]
		for _, s := range samples {
			out = append(out, Keyed[pairKey]{s.key(), s.Seconds})
		}
		return out
	}
	return PairedRatios(keyed(a), keyed(b))
}
