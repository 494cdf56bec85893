// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/reference"
)

// Machine is what figures depend on beside the programs.
type Machine struct {
	Kernel string `json:"kernel"`
	// CPUs that this process may use, and their model.
	CPUs  int    `json:"cpus"`
	Model string `json:"model"`
	Go    string `json:"go"`
	// IPTables is the version and back end of the program that the bridge
	// executes.
	IPTables string `json:"iptables"`
	// Reference is the version of the reference plugins.
	Reference string `json:"reference"`
	// Zipline is what the plugin under test says of its version.
	Zipline string `json:"zipline,omitempty"`
	// Virtual says that a hypervisor is below the kernel.
	Virtual bool `json:"virtual,omitempty"`
	// Governor of the CPUs' frequency, and Turbo: "on" or "off". Empty where the
	// kernel does not show them, as in most virtual machines.
	Governor string `json:"governor,omitempty"`
	Turbo    string `json:"turbo,omitempty"`
	// Mitigations are what the kernel says of the CPU's flaws that it has,
	// as "name: state", sorted.
	Mitigations []string `json:"mitigations,omitempty"`
	// LoadBefore and LoadAfter are the load averages of the minute before the
	// run and of its last one.
	LoadBefore float64 `json:"loadBefore,omitempty"`
	LoadAfter  float64 `json:"loadAfter,omitempty"`
	// Steal is the share of the run's CPU time that a hypervisor gave to others.
	Steal float64 `json:"steal,omitempty"`
	// Command is the command line of the run.
	Command []string  `json:"command"`
	Time    time.Time `json:"time"`
}

// thisMachine describes the machine that calls it. What it does not know, it
// leaves empty.
func thisMachine() Machine {
	m := Machine{
		CPUs: runtime.NumCPU(), Go: runtime.Version(), Reference: reference.Version,
		Command: os.Args, Time: time.Now().UTC().Truncate(time.Second),
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err == nil {
		m.Kernel = unix.ByteSliceToString(name.Release[:]) + " " + unix.ByteSliceToString(name.Machine[:])
	}
	m.Model = cpuField(readText("/proc/cpuinfo"), "model name")
	if out, err := exec.Command("iptables", "--version").Output(); err == nil {
		m.IPTables = strings.TrimSpace(string(out))
	}
	return m
}

// cpuField returns what the text of /proc/cpuinfo says of the first CPU, or "" where
// an architecture does not say.
func cpuField(cpuinfo, name string) string {
	for line := range strings.Lines(cpuinfo) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// String returns two lines of text.
func (m Machine) String() string {
	return fmt.Sprintf("kernel %s, %d CPUs (%s), %s, %s, bridge %s\n%s, %s", m.Kernel, m.CPUs, m.Model,
		m.Go, m.IPTables, m.Reference, m.Time.Format(time.RFC3339), strings.Join(m.Command, " "))
}
