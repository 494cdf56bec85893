// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/zipline-cni/zipline/loader/prog"
)

// progJSON is a program on a side of a device. linkId and priority are 0 where
// there is no link or filter.
type progJSON struct {
	Device     string `json:"device" doc:"the device"`
	Direction  string `json:"direction" doc:"ingress or egress, as the device sees it"`
	Hook       string `json:"hook" doc:"tcx or clsact"`
	Position   int    `json:"position" doc:"from 1, the order in which packets meet the programs of a hook; tcx comes before clsact"`
	ProgramID  uint32 `json:"programId" doc:"the kernel's id of the program"`
	Program    string `json:"program" doc:"its name, as much as the kernel keeps"`
	Tag        string `json:"tag" doc:"the kernel's hash of its instructions"`
	LinkID     uint32 `json:"linkId" doc:"the kernel's id of the link, 0 where the device owns the attachment"`
	Pin        string `json:"pin" doc:"path of the link's pin, empty for none that can be seen"`
	Priority   uint16 `json:"priority" doc:"of the clsact filter, 0 for tcx"`
	ReplacedID uint32 `json:"replacedProgramId" doc:"the program whose place at the pin it took, 0 for none"`
}

func (a *app) progCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "prog",
		Short: "Attach anybody's tc programs, list them, take them off",
		Long: `prog loads and attaches tc programs from object files of anybody, in any order
with those that are there: it needs neither zipline's programs nor its networks.`,
		Example: "  ziplinectl prog list --dev eth0",
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.progAttachCommand(), a.progListCommand(), a.progDetachCommand(), a.progShowCommand())
	return c
}

// progFlags are the flags of prog attach.
type progFlags struct {
	prog.Options
	ingress, egress, first, last bool
	before, after                string
}

func (f *progFlags) options(file string) (prog.Options, error) {
	o := f.Options
	o.File = file
	if o.Device == "" {
		return o, usageError{errors.New("--dev is missing")}
	}
	o.Direction = prog.Ingress
	if f.egress {
		o.Direction = prog.Egress
	}
	switch {
	case f.first:
		o.Where = prog.First
	case f.before != "":
		o.Where, o.Anchor = prog.Before, f.before
	case f.after != "":
		o.Where, o.Anchor = prog.After, f.after
	default:
		o.Where = prog.Last
	}
	return o, nil
}

func (a *app) progAttachCommand() *cobra.Command {
	f := new(progFlags)
	c := describes(progJSON{}, &cobra.Command{
		Use:   "attach FILE.o",
		Short: "Load a tc program from an object file and attach it",
		Long: `attach loads one program of an object file and attaches it to a side of a device,
by TCX at a place among the programs that are there (default: last), or with
--clsact, and on kernels before 6.6, by a filter whose priority gives it that place.

Without --pin the device owns the attachment: it ends with the device or by
prog detach. With --pin a link owns it, which is pinned below /sys/fs/bpf and ends
with the pin; attach to a pin that is there replaces its program in one step, at
the same place. Maps that ask to be pinned by name are shared below /sys/fs/bpf.`,
		Example: `  ziplinectl prog attach count.o --dev eth0 --ingress --first
  ziplinectl prog attach police.o --program limit --dev eth0 --egress --before to_device --pin police`,
		Args:        cobra.ExactArgs(1),
		Annotations: map[string]string{needs: needsRoot},
		RunE: func(_ *cobra.Command, args []string) error {
			o, err := f.options(args[0])
			if err != nil {
				return err
			}
			attached, replaced, err := prog.Attach(o)
			if err != nil {
				return err
			}
			row := progRow(*attached)
			row.ReplacedID = replaced
			return a.print(row, func(g *grid) { progTable(g, []progJSON{row}) })
		},
	})
	flags := c.Flags()
	flags.StringVar(&f.Program, "program", "", "name of the program, where the file has several")
	flags.StringVar(&f.Section, "section", "", "its section, in place of its name")
	flags.StringVar(&f.Device, "dev", "", "device to attach to")
	completeFlag(c, "dev", deviceWords)
	flags.BoolVar(&f.ingress, "ingress", false, "attach to what the device receives")
	flags.BoolVar(&f.egress, "egress", false, "attach to what the device sends")
	flags.BoolVar(&f.first, "first", false, "before all others")
	flags.BoolVar(&f.last, "last", false, "after all others (default)")
	flags.StringVar(&f.before, "before", "", "before the program with this name or id")
	flags.StringVar(&f.after, "after", "", "after the program with this name or id")
	flags.StringVar(&f.Pin, "pin", "", "pin of the link: a name below /sys/fs/bpf, or a path")
	flags.BoolVar(&f.Clsact, "clsact", false, "attach by a clsact filter also where the kernel has TCX")
	c.MarkFlagsMutuallyExclusive("ingress", "egress")
	c.MarkFlagsOneRequired("ingress", "egress")
	c.MarkFlagsMutuallyExclusive("first", "last", "before", "after")
	c.MarkFlagsMutuallyExclusive("program", "section")
	return c
}

func (a *app) progListCommand() *cobra.Command {
	var device string
	c := describes([]progJSON{}, &cobra.Command{
		Use:   "list",
		Short: "List the programs on devices, in the order in which packets meet them",
		Long: `list prints every tc program on the devices of this network namespace, whoever
attached it, in the order in which packets meet them: those of TCX, then those of
clsact.`,
		Example:     "  ziplinectl prog list --dev eth0",
		Annotations: map[string]string{needs: needsRoot},
		RunE: func(*cobra.Command, []string) error {
			list, err := prog.List(device)
			if err != nil {
				return err
			}
			rows := []progJSON{}
			for _, p := range list {
				rows = append(rows, progRow(p))
			}
			return a.print(rows, func(g *grid) { progTable(g, rows) })
		},
	})
	c.Flags().StringVar(&device, "dev", "", "only this device")
	completeFlag(c, "dev", deviceWords)
	return c
}

func (a *app) progDetachCommand() *cobra.Command {
	var device string
	var ingress, egress bool
	c := describes(progJSON{}, &cobra.Command{
		Use:   "detach ID|NAME",
		Short: "Take a program off a device",
		Long: `detach takes a program off a device, whoever attached it and however, and removes
the pin of its link. The program itself is gone when nothing else holds it.`,
		Example:     "  ziplinectl prog detach count --dev eth0",
		Args:        cobra.ExactArgs(1),
		Annotations: map[string]string{needs: needsRoot},
		RunE: func(_ *cobra.Command, args []string) error {
			if device == "" {
				return usageError{errors.New("--dev is missing")}
			}
			direction := prog.Direction("")
			switch {
			case ingress:
				direction = prog.Ingress
			case egress:
				direction = prog.Egress
			}
			p, err := prog.Detach(device, direction, args[0])
			if err != nil {
				return err
			}
			row := progRow(*p)
			return a.print(row, func(g *grid) { progTable(g, []progJSON{row}) })
		},
	})
	c.Flags().StringVar(&device, "dev", "", "device to take it off")
	completeFlag(c, "dev", deviceWords)
	c.Flags().BoolVar(&ingress, "ingress", false, "only from what the device receives")
	c.Flags().BoolVar(&egress, "egress", false, "only from what the device sends")
	c.MarkFlagsMutuallyExclusive("ingress", "egress")
	return c
}

func progRow(p prog.Attached) progJSON {
	return progJSON{
		Device: p.Device, Direction: string(p.Direction), Hook: p.Hook, Position: p.Position, ProgramID: p.ID,
		Program: p.Name, Tag: p.Tag, LinkID: p.LinkID, Pin: p.Pin, Priority: p.Priority,
	}
}

func progTable(g *grid, rows []progJSON) {
	g.heading("DEVICE", "DIRECTION", "HOOK", "ORDER", "PROGRAM", "ID", "TAG", "HELD-BY")
	for _, p := range rows {
		held := "device"
		switch {
		case p.Pin != "":
			held = p.Pin
		case p.LinkID != 0:
			held = fmt.Sprintf("link %d", p.LinkID)
		case p.Priority != 0:
			held = fmt.Sprintf("filter %d", p.Priority)
		}
		g.row(p.Device, p.Direction, p.Hook, strconv.Itoa(p.Position), p.Program, idText(p.ProgramID), p.Tag, held)
	}
}
