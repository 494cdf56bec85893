// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/datapath"
	"github.com/zipline-cni/zipline/loader"
)

var cniChecks = []Check{
	{"cni-configuration", topicCNI, "the networks of type zipline in /etc/cni/net.d", "one that ADD would refuse", checkConfigs},
	{"cni-chain", topicCNI, "plugins chained behind zipline", "bandwidth: it does not limit what eBPF carries", checkChain},
	{"lease-directory", topicCNI, "the directories with host-local's leases", "one that cannot be written, or is no directory", checkLeaseDirectory},
}

// configDir returns where the runtime looks for networks.
func (n *node) configDir() string { return cmp.Or(n.ConfigDir, "/etc/cni/net.d") }

// configured is a network as a file has it.
type configured struct {
	Network
	file  string
	chain []string // types of the plugins behind ours
}

func (c *configured) hasFamily(family int) bool {
	return len(c.Subnets) == 0 || slices.ContainsFunc(c.Subnets, func(p netip.Prefix) bool { return p.Addr().Is4() == (family == unix.AF_INET) })
}

// readConfigs reads what a runtime would: *.conf, *.conflist and *.json. The
// second result is what is wrong with them.
func (n *node) readConfigs() (configs []configured, wrong []Finding) {
	entries, err := os.ReadDir(n.path(n.configDir()))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, skipped(err)
	}
	for _, entry := range entries {
		if !slices.Contains([]string{".conf", ".conflist", ".json"}, filepath.Ext(entry.Name())) {
			continue
		}
		found, err := n.readConfig(entry.Name())
		configs = append(configs, found...)
		if errors.Is(err, os.ErrPermission) {
			wrong = append(wrong, Finding{Level: Skipped, Subject: entry.Name(), Found: "could not look: " + oneLine(err)})
		} else if err != nil {
			wrong = append(wrong, Finding{
				Level: Problem, Subject: entry.Name(), Found: oneLine(err), Means: "every ADD of this network fails",
				Advice: "correct " + filepath.Join(n.configDir(), entry.Name()) + " (docs/configuration.md)",
			})
		}
	}
	return configs, wrong
}

// readConfig reads one file: a network configuration, or a list of plugins, each
// of which the runtime gives the list's name and version.
func (n *node) readConfig(name string) ([]configured, error) {
	data, err := os.ReadFile(n.path(filepath.Join(n.configDir(), name)))
	if err != nil {
		return nil, err
	}
	var file struct {
		Name       json.RawMessage              `json:"name"`
		CNIVersion json.RawMessage              `json:"cniVersion"`
		Type       string                       `json:"type"`
		Plugins    []map[string]json.RawMessage `json:"plugins"`
	}
	if err := json.Unmarshal(data, &file); err != nil {
		if !strings.Contains(string(data), "zipline") {
			return nil, nil // somebody else's, to whom it is left
		}
		return nil, fmt.Errorf("read json: %w", err)
	}
	if file.Type != "" {
		file.Plugins = []map[string]json.RawMessage{nil}
	}
	var types []string
	for _, p := range file.Plugins {
		var kind string
		_ = json.Unmarshal(p["type"], &kind) // what is no text is no plugin of ours
		types = append(types, kind)
	}
	var configs []configured
	var errs []error
	for i, p := range file.Plugins {
		raw := data
		if p == nil && file.Type != "zipline" || p != nil && types[i] != "zipline" {
			continue
		}
		if p != nil {
			for key, value := range map[string]json.RawMessage{"name": file.Name, "cniVersion": file.CNIVersion} {
				if value != nil {
					p[key] = value
				}
			}
			raw, _ = json.Marshal(p) // was just read
		}
		network, err := n.parse(raw)
		errs = append(errs, err)
		if err == nil {
			configs = append(configs, configured{network, filepath.Join(n.configDir(), name), types[i+1:]})
		}
	}
	return configs, errors.Join(errs...)
}

func (n *node) parse(raw []byte) (Network, error) {
	if n.Parse == nil {
		return Network{}, errors.New("nothing to parse it with")
	}
	return n.Parse(raw)
}

func checkConfigs(n *node) []Finding {
	configs, findings := n.configs()
	for _, c := range configs {
		findings = append(findings, Finding{Level: OK, Subject: filepath.Base(c.file), Found: fmt.Sprintf("network %s, forwarding %s", c.Name, c.Forwarding)})
	}
	return orOK(findings, "no network of type zipline in %s", n.configDir())
}

// allChain says whether each configured network has a plugin chained.
func (n *node) allChain(plugin string) bool {
	configs, _ := n.configs()
	return len(configs) > 0 && !slices.ContainsFunc(configs, func(c configured) bool { return !slices.Contains(c.chain, plugin) })
}

// everySubnet says whether something holds for all subnets of all networks.
func (n *node) everySubnet(holds func(subnet string) bool) bool {
	configs, _ := n.configs()
	known := false
	for _, c := range configs {
		for _, p := range c.Subnets {
			known = true
			if !holds(p.String()) {
				return false
			}
		}
	}
	return known
}

// chained tells what is known of plugins behind ours.
func (n *node) chained(c configured, plugin string) (f Finding) {
	carried := c.Forwarding != datapath.ForwardingKernel
	switch {
	case plugin == "bandwidth" && carried:
		f = Finding{
			Level: Warning, Found: "bandwidth is chained", Means: "it does not limit what eBPF carries",
			Advice: `set "forwarding": "kernel" in ` + c.file,
		}
	case plugin == "portmap" && c.Forwarding == datapath.ForwardingDirect && n.tier() == loader.TierDirect:
		f = Finding{
			Level: Warning, Found: "portmap is chained, forwarding is direct, and programs cannot look up conntrack",
			Means:  "answers of a container to a neighbour that came by a host port are not translated back: such connections fail",
			Advice: `set "forwarding": "auto" in ` + c.file,
		}
	default:
		f = Finding{Level: OK, Found: plugin + " is chained"}
	}
	f.Subject = c.Name
	return f
}

func checkChain(n *node) []Finding {
	configs, _ := n.configs()
	var findings []Finding
	for _, c := range configs {
		for _, plugin := range c.chain {
			findings = append(findings, n.chained(c, plugin))
		}
	}
	return orOK(findings, "none")
}

func checkLeaseDirectory(n *node) []Finding {
	configs, _ := n.configs()
	var findings []Finding
	seen := map[string]bool{}
	for _, c := range configs {
		if c.DataDir == "" || seen[c.DataDir] {
			continue
		}
		seen[c.DataDir] = true
		if f, bad := n.lookAtLeases(c.DataDir); bad {
			findings = append(findings, f)
		}
	}
	return orOK(findings, "can be written")
}

// lookAtLeases asks about the directory, or the first of its parents that there is.
func (n *node) lookAtLeases(dir string) (f Finding, bad bool) {
	f = Finding{Subject: dir, Level: Problem, Means: "every ADD fails"}
	at := dir
	info, err := os.Stat(n.path(at))
	for errors.Is(err, os.ErrNotExist) && at != "/" {
		at = filepath.Dir(at)
		info, err = os.Stat(n.path(at))
	}
	if errors.Is(err, unix.ENOTDIR) || err == nil && !info.IsDir() {
		f.Found, f.Mend = "is, or is below, something that is no directory", "ls -ld "+quote(at)
		return f, true
	}
	if err == nil {
		err = unix.Access(n.path(at), unix.W_OK)
	}
	switch {
	case err == nil:
		return f, false
	case errors.Is(err, unix.EACCES) && os.Geteuid() != 0:
		f.Level, f.Found, f.Means = Skipped, "could not look: "+errUnprivileged.Error(), ""
	default:
		f.Found, f.Mend = fmt.Sprintf("cannot be written: %v", err), remount(at)
	}
	return f, true
}
