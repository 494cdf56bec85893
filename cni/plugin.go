// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"fmt"
	"io"

	"github.com/containernetworking/cni/pkg/skel"

	"github.com/zipline-cni/zipline/datapath"
)

// Plugin carries out the verbs. Its methods act on the network namespace of
// the calling thread, so the caller locks its goroutine to its thread.
type Plugin struct {
	Stdout io.Writer // receives the result and nothing else
	Stderr io.Writer // receives warnings
}

// Funcs returns the verbs in the form that skel calls.
func (p *Plugin) Funcs() skel.CNIFuncs {
	return skel.CNIFuncs{Add: p.Add, Del: p.Del, Check: p.Check, GC: p.GC, Status: p.Status}
}

func (p *Plugin) warn(warnings []string) {
	for _, w := range warnings {
		_, _ = fmt.Fprintf(p.Stderr, "zipline: warning: %s\n", w) // nowhere left to report to
	}
}

// attachment names the attachment of a call.
func attachment(c *Config, args *skel.CmdArgs) datapath.Attachment {
	return datapath.Attachment{Network: c.Name, ContainerID: args.ContainerID, IfName: args.IfName}
}
