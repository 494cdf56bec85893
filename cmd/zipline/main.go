// SPDX-License-Identifier: Apache-2.0

// Command zipline is a CNI plugin that does what the bridge plugin does,
// from the same configuration, without a bridge.
package main

import (
	"fmt"
	"os"
	"runtime"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/zipline-cni/zipline/cni"
)

// release is set by the linker.
var release = "dev"

func init() {
	// The verbs are one chain of system calls. A second processor only
	// costs wake-ups: ADD takes a quarter longer with it on two.
	//
	// The main goroutine is not locked to its thread, as is the custom of
	// plugins: whatever enters another namespace does so on a locked goroutine
	// of its own, and what asks for the thread's namespace asks thread-self. The
	// lock would cost a thread at the start and a switch at every wait.
	runtime.GOMAXPROCS(1)
}

func main() {
	if err := run(); err != nil {
		if printErr := err.Print(); printErr != nil {
			_, _ = fmt.Fprintln(os.Stderr, "zipline:", printErr, err) // nowhere left to report to
		}
		os.Exit(1)
	}
}

func run() *types.Error {
	plugin := &cni.Plugin{Stdout: os.Stdout, Stderr: os.Stderr}
	funcs := plugin.Funcs()
	deleted := false
	del := funcs.Del
	funcs.Del = func(args *skel.CmdArgs) error {
		err := del(args)
		deleted = err == nil
		return err
	}
	err := skel.PluginMainFuncsWithError(funcs, version.All, "CNI plugin zipline "+release)
	// skel objects to the node's own namespace after DEL has succeeded. An
	// ADD there was refused, so DEL has nothing to object to.
	if err != nil && deleted && err.Code == types.ErrInvalidNetNS {
		return nil
	}
	return err
}
