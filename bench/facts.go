// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// Facts are what needs no repetition to be known.
type Facts struct {
	// Processes and Programs count, for one ADD, the processes that came to be
	// and the programs that were executed, the plugin itself included. Empty
	// where the kernel does not report them.
	Processes map[Subject]int `json:"processes"`
	Programs  map[Subject]int `json:"programs"`
	// Sprung are the command lines of the forbidden programs that an ADD and a
	// DEL executed; see [Trapped].
	Sprung map[Subject][]string `json:"sprung"`
	// BinarySize of the plugin under test in bytes.
	BinarySize int64 `json:"binarySize"`
	// FloorRSS is what an execution's peak memory shows at least; see
	// [Sample].MaxRSS.
	FloorRSS int64 `json:"floorRSS"`
	// KernelMemory is by how many bytes the kernel's memory grew for an endpoint,
	// on average: what it cannot give back, of the whole machine, whatever else
	// ran meanwhile. The containers' namespaces were there before, their devices
	// are in it. Empty where the nodes grew too little to tell.
	KernelMemory map[Subject]float64 `json:"kernelMemory,omitempty"`
}

func (r *run) measureFacts() error {
	info, err := os.Stat(r.opts.Zipline)
	if err != nil {
		return fmt.Errorf("find plugin: %w", err)
	}
	r.facts = Facts{
		Processes: map[Subject]int{}, Programs: map[Subject]int{}, Sprung: map[Subject][]string{},
		BinarySize: info.Size(),
	}
	for _, subject := range []Subject{Zipline, Bridge, PTP} {
		w := newWorld(r.tb, r.plugins[subject], r.opts.BridgeNetfilter)
		if err := r.countProcesses(subject, w); err != nil {
			return err
		}
		if r.facts.Sprung[subject], err = meetTraps(w); err != nil {
			return err
		}
	}
	// A trap that nothing ever meets would prove nothing.
	for _, name := range []string{"iptables", "host-local"} {
		if !slices.ContainsFunc(r.facts.Sprung[Bridge], func(line string) bool { return strings.Contains(line, name) }) {
			return fmt.Errorf("set traps: bridge met no %s, but %q", name, r.facts.Sprung[Bridge])
		}
	}
	return nil
}

// countProcesses counts what one ADD starts, with a container present already:
// the first ADD on a node is a special one.
func (r *run) countProcesses(subject Subject, w *world) error {
	if _, err := w.mustResize(1, 1); err != nil {
		return err
	}
	if err := w.makeContainers(2); err != nil {
		return err
	}
	watch, err := watchProcesses()
	if err != nil {
		// In a container, say. All else can be measured; the target is missed.
		r.tb.Logf("processes are not counted: %v", err)
		return nil
	}
	defer watch.close()
	rep, err := w.mustResize(2, 1)
	if err != nil {
		return err
	}
	events, err := watch.events()
	if err != nil {
		return err
	}
	r.facts.Processes[subject], r.facts.Programs[subject] = countDescendants(events, rep.Executions[0].PID)
	return nil
}

// meetTraps attaches and detaches a container where every forbidden program is a
// trap, and returns what was caught. Delegates are looked for in CNI_PATH, so it
// is done once with the real one and once with a trap in its place. A plugin that
// needs what it does not get fails, which is no error here.
func meetTraps(w *world) ([]string, error) {
	if _, err := w.call(request{Traps: Trapped}); err != nil {
		return nil, err
	}
	var failure error
	for _, cniPath := range []string{w.plugin.CNIPath, trapDir + ":" + w.plugin.CNIPath} {
		plugin := w.plugin
		plugin.Path, plugin.CNIPath = trapDir, cniPath
		rep, err := w.runAs(plugin, 1, job{"ADD", w.present}, job{"DEL", w.present})
		if err != nil {
			return nil, err
		}
		failure = errors.Join(failure, firstFailure(rep))
	}
	rep, err := w.call(request{Sprung: true})
	if err != nil {
		return nil, err
	}
	if failure != nil && len(rep.Sprung) == 0 {
		return nil, fmt.Errorf("execute among traps: %w", failure)
	}
	return rep.Sprung, nil
}
