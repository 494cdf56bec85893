// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/datapath"
	"github.com/zipline-cni/zipline/loader"
)

// node is what several checks look at. Each thing is read once, when the first
// of them asks.
type node struct {
	Options
	links     func() ([]netlink.Link, error)
	endpoints func() ([]datapath.Attached, error)
	uplinks   func() ([]uplink, error)
	configs   func() ([]configured, []Finding)
	processes func() map[string]bool
	programs  func() error
	peer      func() error
	conntrack func() error
	tcx       func() error
	bpffs     func() error
	kernel    func() error
}

func newNode(o Options) *node {
	n := &node{Options: o}
	n.links = sync.OnceValues(netlinksafe.LinkList)
	n.endpoints = sync.OnceValues(datapath.Endpoints)
	n.uplinks = sync.OnceValues(n.readUplinks)
	n.configs = sync.OnceValues(n.readConfigs)
	n.processes = sync.OnceValue(n.readProcesses)
	n.programs = n.try(loader.HavePrograms)
	n.peer = n.try(loader.HaveRedirectPeer)
	n.conntrack = n.try(loader.HaveConntrack)
	n.tcx = n.try(loader.HaveTCX)
	n.bpffs = n.try(n.tryBPFFS)
	n.kernel = n.try(func() error { return datapath.Status(datapath.ForwardingKernel) })
	return n
}

// errUnprivileged says that a trial needs rights that this process lacks. An ADD
// has them: what fails for their lack says nothing about the node.
var errUnprivileged = errors.New("needs root")

// try makes a trial that is made once, and only by who may.
func (n *node) try(f func() error) func() error {
	return sync.OnceValue(func() error {
		if !mayTry() {
			return errUnprivileged
		}
		return f()
	})
}

// mayTry says whether the process has the capabilities that an ADD has.
func mayTry() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if unix.Capget(&header, &data[0]) != nil {
		return false
	}
	const wanted = 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_SYS_ADMIN
	return data[0].Effective&wanted == wanted
}

// path returns where a file of the node is.
func (n *node) path(name string) string { return filepath.Join("/", n.Root, name) }

// sysctl returns a value of the kernel by its path below /proc/sys. The second
// value is false where there is none to be read.
func (n *node) sysctl(name string) (string, bool) {
	if value, fake := n.sysctls[name]; fake {
		return value, value != ""
	}
	data, err := os.ReadFile("/proc/sys/" + name)
	return strings.TrimSpace(string(data)), err == nil
}

func (n *node) sysctlIs(name, value string) bool {
	have, there := n.sysctl(name)
	return there && have == value
}

// setSysctl is the command that sets a value for good.
func setSysctl(name, value string) string {
	key := name
	if !strings.Contains(name, ".") { // else it is a device's name that has a dot
		key = strings.ReplaceAll(name, "/", ".")
	}
	return fmt.Sprintf("echo %s >> /etc/sysctl.d/90-zipline.conf && sysctl -p /etc/sysctl.d/90-zipline.conf", quote(key+" = "+value))
}

// remount is the command that makes the file system of a directory writable: of
// what is mounted there or above.
func remount(dir string) string {
	return fmt.Sprintf(`mount -o remount,rw "$(stat -c %%m %s)"`, quote(dir))
}

// readProcesses returns the names of the processes that run.
func (n *node) readProcesses() map[string]bool {
	names := map[string]bool{}
	files, _ := filepath.Glob(n.path("/proc/[0-9]*/comm")) // the pattern is good
	for _, file := range files {
		if data, err := os.ReadFile(file); err == nil {
			names[strings.TrimSpace(string(data))] = true
		}
	}
	return names
}

// wantsNetfilter is what "auto" asks: where one of the switches that a bridge
// follows is on, netfilter shall see traffic between containers.
func (n *node) wantsNetfilter() bool {
	return n.sysctlIs("net/bridge/bridge-nf-call-iptables", "1") || n.sysctlIs("net/bridge/bridge-nf-call-ip6tables", "1")
}

// count returns how many endpoints there are, 0 where that cannot be told.
func (n *node) count() int {
	endpoints, _ := n.endpoints()
	return len(endpoints)
}

const maxError = 300 // bytes

// oneLine keeps a long error (a verifier's log) readable.
func oneLine(err error) string {
	text := strings.Join(strings.Fields(err.Error()), " ")
	if len(text) > maxError {
		return text[:maxError] + " …"
	}
	return text
}

// list joins names for people: three of them and the number of the rest.
func list(names []string) string {
	const few = 3
	if len(names) <= few+1 {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:few], ", "), len(names)-few)
}

// quote makes a word safe to paste into a shell.
func quote(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/:@+") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
