// SPDX-License-Identifier: Apache-2.0

package report

import (
	"math"
	"math/rand/v2"
	"time"

	"github.com/zipline-cni/zipline/bench"
)

// synthetic makes results as a run gives them, from a seed alone.
type synthetic struct {
	seed   uint64
	rounds int
	// scatter of a sample, and of a whole cell of a case, as logarithms.
	scatter, bias float64
	// biases of workloads that are not ordinary.
	biases map[bench.Workload]float64
	// rates of each case to the wire's.
	rates       map[bench.Subject]float64
	paths       []bench.Path
	workloads   []bench.Workload
	connections []int
}

// ordinary is what may be expected of this project.
func ordinary() synthetic {
	return synthetic{
		seed: 1, rounds: 12, scatter: 0.03, bias: 0.002,
		rates: map[bench.Subject]float64{
			"loopback": 1.6, bench.Wire: 1, bench.WireAgain: 1, bench.Bridge: 0.66, "bridge-nf0": 0.78, "bridge-nft": 0.6, "ptp": 0.7,
			bench.Kernel: 0.68, bench.Direct: 0.985, bench.Tracked: 0.975,
			big(bench.Direct): 1.35, big(bench.Tracked): 1.3,
		},
		paths: bench.Paths, workloads: bench.Workloads, connections: []int{1, 32},
	}
}

// order of the cases.
var syntheticCases = []bench.Subject{
	"loopback", bench.Wire, bench.WireAgain, bench.Bridge, "bridge-nf0", "bridge-nft", "ptp",
	bench.Kernel, bench.Direct, bench.Tracked, big(bench.Direct), big(bench.Tracked),
}

// wireRates are units per second of the wire.
var wireRates = map[bench.Workload]float64{
	bench.TCPRR: 65e3, bench.TCPCRR: 14e3, bench.TCPStream: 5.2e9, bench.TCPMaerts: 5e9, bench.UDPRR: 72e3, bench.UDP64: 820e3, bench.UDP1400: 640e3,
}

func (s synthetic) results() *bench.Results {
	r := &bench.Results{
		Version: bench.ResultsVersion, Duration: 200 * time.Millisecond, Warmup: 50 * time.Millisecond, Placement: bench.Together, Seed: 1,
		Machine: bench.Machine{
			Kernel: "6.18.1 x86_64", CPUs: 2, Model: "Example CPU", Go: "go1.26.0", IPTables: "iptables v1.8.9 (nf_tables)", Reference: "v1.9.1",
			Zipline: "zipline v0.5.0", Virtual: true, LoadBefore: 0.12, LoadAfter: 1.4, Command: []string{"zipline-bench", "run"},
			Mitigations: []string{"spectre_v2: Mitigation: Retpolines"}, Time: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC),
		},
	}
	random := rand.New(rand.NewPCG(s.seed, 7))
	for _, name := range syntheticCases {
		if s.rates[name] > 0 {
			kind := bench.KindPlugin
			switch name {
			case loopback:
				kind = bench.KindLoopback
			case bench.Wire, bench.WireAgain:
				kind = bench.KindWire
			}
			r.Cases = append(r.Cases, bench.Case{Name: name, Title: "the case " + string(name), Kind: kind})
		}
	}
	for _, path := range s.paths {
		for _, w := range s.workloads {
			for _, connections := range s.connections {
				s.cell(r, random, Cell{path, w, connections, 0})
			}
		}
	}
	return r
}

// cell adds the samples of a cell. The machine's speed differs from round to round,
// which no ratio may show.
func (s synthetic) cell(r *bench.Results, random *rand.Rand, cell Cell) {
	biases := map[bench.Subject]float64{}
	for _, c := range r.Cases {
		bias, ok := s.biases[cell.Workload]
		if !ok {
			bias = s.bias
		}
		biases[c.Name] = random.NormFloat64() * bias
	}
	for round := range s.rounds {
		speed := math.Exp(random.NormFloat64() * 0.2)
		for _, c := range r.Cases {
			if (c.Name == big(bench.Direct) || c.Name == big(bench.Tracked)) && !cell.Workload.Bulk() {
				continue
			}
			rate := wireRates[cell.Workload] * s.rates[c.Name] * speed * math.Exp(biases[c.Name]+random.NormFloat64()*s.scatter)
			r.Flows = append(r.Flows, syntheticSample(cell, c.Name, round, rate))
		}
	}
}

// syntheticSample is a sample of a rate. One of two CPUs is busy all the time.
func syntheticSample(cell Cell, subject bench.Subject, round int, rate float64) bench.FlowSample {
	const seconds = 0.2
	s := bench.FlowSample{
		Path: cell.Path, Workload: cell.Workload, Subject: subject, Connections: cell.Connections, Endpoints: cell.Endpoints, Round: round,
		Seconds: seconds, Units: uint64(rate * seconds), Total: uint64(rate * seconds * 1.25), Busy: seconds * 1.02, Threads: seconds * 1.25,
	}
	if subject == bench.Direct || subject == bench.Tracked {
		s.Carried = 0.997
	}
	switch {
	case cell.Workload.Datagrams():
		s.Lost = s.Units / 200
		s.Sent = s.Units + s.Lost
	case !cell.Workload.Bulk():
		p50 := float64(cell.Connections) / rate
		s.Latency = &bench.Latency{P50: p50, P99: p50 * 2.1, P999: p50 * 4}
	}
	return s
}

// withGrowth adds networks that grow, where the cost of a connection rises by a
// share from one endpoint to a thousand.
func (s synthetic) withGrowth(r *bench.Results, rises map[bench.Subject]float64) {
	random := rand.New(rand.NewPCG(s.seed, 8))
	for round := range s.rounds {
		for _, subject := range syntheticCases {
			rise, grows := rises[subject]
			if !grows {
				continue
			}
			for _, endpoints := range []int{1, 250, 1000} {
				rate := wireRates[bench.TCPCRR] * s.rates[subject] / (1 + rise*float64(endpoints-1)/999) * math.Exp(random.NormFloat64()*s.scatter)
				r.Flows = append(r.Flows, syntheticSample(Cell{bench.Local, bench.TCPCRR, 1, endpoints}, subject, round, rate))
			}
		}
	}
}

// withControl adds ADD and DEL, maps and a crosscheck.
func (s synthetic) withControl(r *bench.Results) {
	random := rand.New(rand.NewPCG(s.seed, 9))
	scattered := func(v float64) float64 { return v * math.Exp(random.NormFloat64()*0.08) }
	for _, endpoints := range []int{1, 100, 500, 1000, 2000, 4000} {
		for round := range s.rounds {
			for i, verb := range []string{"ADD", "DEL"} {
				times := map[bench.Subject]float64{
					bench.Zipline: (0.017 - 0.004*float64(i)) * (1 + float64(endpoints)/30000),
					bench.Bridge:  (0.075 - 0.02*float64(i)) * (1 + float64(endpoints)/700),
				}
				for _, subject := range []bench.Subject{bench.Zipline, bench.Bridge} {
					if subject == bench.Bridge && endpoints > 1000 {
						continue
					}
					r.Attach = append(r.Attach, bench.Sample{
						Phase: bench.PhasePaired, Subject: subject, Verb: verb, Endpoints: endpoints, Round: round, Seconds: scattered(times[subject]),
					})
				}
			}
		}
		r.Maps = append(r.Maps, bench.MapMemory{Endpoints: endpoints, Name: "endpoints", Bytes: uint64(400_000 + 90*endpoints)},
			bench.MapMemory{Endpoints: endpoints, Name: "counters", Bytes: 65536})
	}
	for round := range 3 {
		for _, verb := range []string{"ADD", "DEL"} {
			r.Attach = append(r.Attach, bench.Sample{Phase: bench.PhaseParallel, Subject: bench.Zipline, Verb: verb, Endpoints: 200, Round: round, Seconds: scattered(1.9)},
				bench.Sample{Phase: bench.PhaseParallel, Subject: bench.Bridge, Verb: verb, Endpoints: 200, Round: round, Seconds: scattered(9)})
		}
	}
	r.Facts = bench.Facts{
		Processes: map[bench.Subject]int{bench.Zipline: 1, bench.Bridge: 12}, Programs: map[bench.Subject]int{bench.Zipline: 1, bench.Bridge: 11},
		Sprung:       map[bench.Subject][]string{bench.Bridge: {"iptables -w"}},
		KernelMemory: map[bench.Subject]float64{bench.Zipline: 45_200},
	}
	r.Crosschecks = []bench.Crosscheck{{What: "TCP_STREAM of the wire", Tool: "iperf3 3.12", Unit: "bit/s"}}
	for range s.rounds {
		r.Crosschecks[0].Ours = append(r.Crosschecks[0].Ours, scattered(41e9))
		r.Crosschecks[0].Theirs = append(r.Crosschecks[0].Theirs, scattered(40e9))
	}
}

// whole is everything that a run can give.
func whole() *bench.Results {
	s := ordinary()
	r := s.results()
	s.withGrowth(r, map[bench.Subject]float64{bench.Bridge: 0.13, "bridge-nft": 0.26, bench.Direct: 0, bench.Tracked: 0})
	s.withControl(r)
	return r
}

// small is less than an ordinary run: two paths, two rounds more than show anything.
func small() synthetic {
	s := ordinary()
	s.rounds = 8
	s.paths, s.workloads = bench.Paths[:2], []bench.Workload{bench.TCPRR, bench.TCPCRR, bench.TCPStream, bench.UDP64}
	return s
}

// one is a single cell with some cases.
func one(rates map[bench.Subject]float64) synthetic {
	s := ordinary()
	s.rounds, s.bias, s.rates = 20, 0, rates
	s.paths, s.workloads, s.connections = bench.Paths[:1], []bench.Workload{bench.TCPRR}, []int{1}
	return s
}
