// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strconv"

	"github.com/spf13/cobra"

	"github.com/zipline-cni/zipline/datapath"
	"github.com/zipline-cni/zipline/loader"
)

// stepJSON is one place that holds another program than before. A program id of
// 0 is none.
type stepJSON struct {
	Action       string `json:"action" doc:"attached, replaced or detached; of a pin: pinned, repinned or unpinned"`
	Device       string `json:"device" doc:"the device; empty for a pin"`
	Program      string `json:"program" doc:"name of the program"`
	Hook         string `json:"hook" doc:"what holds it: tcx, clsact or pin"`
	OldProgramID uint32 `json:"oldProgramId" doc:"the kernel's id of the program that was there before, 0 for none"`
	ProgramID    uint32 `json:"programId" doc:"the kernel's id of the program that is there now, 0 for none"`
}

func (a *app) loadCommand() *cobra.Command {
	return describes([]stepJSON{}, &cobra.Command{
		Use:   "load",
		Short: "Load and pin the programs and maps",
		Long: `load loads the programs and maps and pins them, as the first ADD of a node does,
and prints what it did; nothing where they are loaded. Where another version is
loaded it is replaced, as upgrade does.`,
		Example:     "  ziplinectl load",
		Annotations: map[string]string{needs: needsRoot},
		RunE: func(*cobra.Command, []string) error {
			steps, err := loader.Site{}.Load()
			return a.printSteps(steps, err)
		},
	})
}

func (a *app) attachCommand() *cobra.Command {
	var uplink, force bool
	c := describes([]stepJSON{}, &cobra.Command{
		Use:   "attach DEV",
		Short: "Attach the programs to a host veth or an uplink",
		Long: `attach puts the programs on the host veth of an endpoint or, with --uplink, on a
device of a default route, by TCX or else by clsact, and loads them first where
they are not loaded. What is attached already stays; another version is replaced
in one step. It refuses a device that is no endpoint's, and an endpoint that is not
published in the maps (after unload; use repair): the programs of a host veth drop
what comes from addresses that are not leased to it. --force attaches all the same.`,
		Example: `  ziplinectl attach zlabcd123456789
  ziplinectl attach eth0 --uplink`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeFirst(deviceWords),
		Annotations:       map[string]string{needs: needsRoot},
		RunE: func(_ *cobra.Command, args []string) error {
			attach := datapath.AttachEndpoint
			if uplink {
				attach = datapath.AttachUplink
			}
			steps, err := attach(args[0], force)
			return a.printSteps(steps, err)
		},
	})
	c.Flags().BoolVar(&uplink, "uplink", false, "attach the programs of an uplink")
	c.Flags().BoolVar(&force, "force", false, "attach to a device that is no endpoint's and has no default route, too")
	return c
}

func (a *app) detachCommand() *cobra.Command {
	return describes([]stepJSON{}, &cobra.Command{
		Use:   "detach DEV",
		Short: "Take the programs off a device",
		Long: `detach takes all programs of zipline off a device, whatever their version. The
stack carries its packets from then on: slower, and none is lost. Programs of
others stay. An uplink is attached again by the next ADD or CHECK of an endpoint
that uses it, a host veth only by attach or repair.`,
		Example:           "  ziplinectl detach eth0",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeFirst(deviceWords),
		Annotations:       map[string]string{needs: needsRoot},
		RunE: func(_ *cobra.Command, args []string) error {
			steps, err := datapath.DetachDevice(args[0])
			return a.printSteps(steps, err)
		},
	})
}

func (a *app) unloadCommand() *cobra.Command {
	var force bool
	c := describes([]stepJSON{}, &cobra.Command{
		Use:   "unload",
		Short: "Take the programs off all devices and remove the pins",
		Long: `unload takes all programs of zipline off all devices of this network namespace
and removes the pins, and with them the maps. It refuses while there are endpoints,
unless --force says that their traffic shall go through the stack from then on.
The next ADD loads the programs again, for its own endpoint; those that are there
get them back by repair.`,
		Example:     "  ziplinectl unload --force",
		Annotations: map[string]string{needs: needsRoot},
		RunE: func(*cobra.Command, []string) error {
			steps, err := loader.Site{}.Unload(force)
			return a.printSteps(steps, err)
		},
	})
	c.Flags().BoolVar(&force, "force", false, "also while there are endpoints")
	return c
}

func (a *app) upgradeCommand() *cobra.Command {
	return describes([]stepJSON{}, &cobra.Command{
		Use:   "upgrade",
		Short: "Replace the programs everywhere by those of this binary",
		Long: `upgrade replaces every program of zipline, on every device and in the bpffs, by
that of this binary, and prints the old and the new one of each place. Each is
replaced in one step and the maps stay, so no packet misses a program. It refuses
to replace programs whose maps have another layout: there unload --force and then
repair do it, with the stack carrying everything in between.`,
		Example:     "  ziplinectl upgrade -o json",
		Annotations: map[string]string{needs: needsRoot},
		RunE: func(*cobra.Command, []string) error {
			steps, err := loader.Site{}.Upgrade()
			return a.printSteps(steps, err)
		},
	})
}

// printSteps prints what was done, also where not all of it was.
func (a *app) printSteps(steps []loader.Step, err error) error {
	if err != nil && len(steps) == 0 {
		return err
	}
	list := []stepJSON{}
	for _, s := range steps {
		list = append(list, stepJSON{actionOf(s), s.Device, s.Program, s.Hook, s.Old, s.ID})
	}
	printErr := printDone(a, list, func(g *grid) { stepRows(g, list) })
	if err != nil {
		return err
	}
	return printErr
}

func stepRows(g *grid, list []stepJSON) {
	g.heading("ACTION", "DEVICE", "PROGRAM", "HOOK", "OLD", "NEW")
	for _, s := range list {
		g.row(s.Action, s.Device, s.Program, s.Hook, idText(s.OldProgramID), idText(s.ProgramID))
	}
}

func actionOf(s loader.Step) string {
	words := [3]string{"attached", "replaced", "detached"}
	if s.Hook == loader.HookPin {
		words = [3]string{"pinned", "repinned", "unpinned"}
	}
	switch {
	case s.Old == 0:
		return words[0]
	case s.ID != 0:
		return words[1]
	default:
		return words[2]
	}
}

func idText(id uint32) string {
	if id == 0 {
		return ""
	}
	return strconv.FormatUint(uint64(id), 10)
}
