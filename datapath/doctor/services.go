// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

var serviceChecks = []Check{
	{"networkmanager", topicServices, "NetworkManager, and whether it leaves zl* alone", "it runs and was not told to", checkNetworkManager},
	{"networkd", topicServices, "systemd-networkd: which .network file takes zl*", "one does, and does not say Unmanaged", checkNetworkd},
	{"networkd-routes", topicServices, "systemd-networkd: ManageForeignRoutes and ManageForeignRoutingPolicyRules", "not no: it removes routes of others when it starts", checkForeignRoutes},
	{"firewalld", topicServices, "firewalld, and whether a zone that accepts has zl+ or the subnets", "it runs and none has: containers' packets are rejected", checkFirewalld},
}

// sampleDevice is a host veth as the globs of these services see it.
const sampleDevice = "zl0123456789abc"

// section is one of an ini file; keys may come several times.
type section struct {
	name string
	keys map[string][]string
}

func (s *section) last(key string) string {
	if values := s.keys[key]; len(values) > 0 {
		return values[len(values)-1]
	}
	return ""
}

// readINI reads what NetworkManager and systemd agree about: sections, keys,
// comments by # and ;. A file that cannot be read has no sections.
func readINI(name string) []section {
	file, err := os.Open(name)
	if err != nil {
		return nil
	}
	defer func() { _ = file.Close() }() // only read from
	var sections []section
	for lines := bufio.NewScanner(file); lines.Scan(); {
		line := strings.TrimSpace(lines.Text())
		switch {
		case line == "" || line[0] == '#' || line[0] == ';':
		case line[0] == '[':
			sections = append(sections, section{strings.Trim(line, "[]"), map[string][]string{}})
		case len(sections) > 0:
			key, value, _ := strings.Cut(line, "=")
			keys := sections[len(sections)-1].keys
			key = strings.TrimSpace(key)
			keys[key] = append(keys[key], strings.TrimSpace(value))
		}
	}
	return sections
}

// dropIns returns the files of a kind in several directories in the order of
// their names; a name in an earlier directory hides later ones.
func (n *node) dropIns(pattern string, dirs ...string) []string {
	byName := map[string]string{}
	for _, dir := range dirs {
		files, _ := filepath.Glob(filepath.Join(n.path(dir), pattern)) // the pattern is good
		for _, file := range files {
			if _, hidden := byName[filepath.Base(file)]; !hidden {
				byName[filepath.Base(file)] = file
			}
		}
	}
	names := make([]string, 0, len(byName))
	for name := range byName {
		names = append(names, name)
	}
	slices.Sort(names)
	for i, name := range names {
		names[i] = byName[name]
	}
	return names
}

func checkNetworkManager(n *node) []Finding {
	if !n.processes()["NetworkManager"] {
		return ok("does not run")
	}
	if by := n.unmanagedBy(); by != "" {
		return ok("runs, and %s has it leave the devices alone", by)
	}
	return []Finding{{
		Level: Warning, Found: "runs, and is not told to leave zl* alone",
		Means: "it may take the host veths down, or give them addresses and routes",
		Mend: `printf '[device-zipline]\nmatch-device=interface-name:zl*\nmanaged=0\n' > /etc/NetworkManager/conf.d/zipline.conf && ` +
			"systemctl reload NetworkManager",
	}}
}

// unmanagedBy returns the file that takes our devices from NetworkManager: a
// udev rule (what it ships takes all veths), unmanaged-devices, or a [device*]
// section with managed=0.
func (n *node) unmanagedBy() string {
	for _, file := range n.dropIns("*.rules", "/etc/udev/rules.d", "/run/udev/rules.d", "/usr/lib/udev/rules.d", "/lib/udev/rules.d") {
		data, _ := os.ReadFile(file) // one that vanished rules nothing
		for line := range strings.Lines(string(data)) {
			line = strings.TrimSpace(line)
			takes := strings.Contains(line, `=="veth"`) || strings.Contains(line, `=="zl*"`)
			if takes && !strings.HasPrefix(line, "#") && strings.Contains(line, `ENV{NM_UNMANAGED}="1"`) {
				return filepath.Base(file)
			}
		}
	}
	files := n.dropIns("*.conf", "/run/NetworkManager/conf.d", "/etc/NetworkManager/conf.d", "/usr/lib/NetworkManager/conf.d")
	for _, file := range append(files, n.path("/etc/NetworkManager/NetworkManager.conf")) {
		for _, s := range readINI(file) {
			keys := map[string][]string{}
			for key, values := range s.keys {
				key = strings.TrimRight(key, "+-")
				keys[key] = append(keys[key], values...)
			}
			list := keys["unmanaged-devices"]
			if strings.HasPrefix(s.name, "device") && slices.Contains([]string{"0", "false", "no"}, s.last("managed")) {
				list = keys["match-device"]
			}
			if matchesDeviceList(strings.Join(list, ";")) {
				return filepath.Base(file)
			}
		}
	}
	return ""
}

// matchesDeviceList understands what of NetworkManager's device list can take a
// host veth (NetworkManager.conf(5), "Device List Format").
func matchesDeviceList(text string) bool {
	matched := false
	for word := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ';' || r == ',' }) {
		word = strings.TrimSpace(word)
		rest, except := strings.CutPrefix(word, "except:")
		glob, byName := strings.CutPrefix(rest, "interface-name:")
		takes := rest == "*" || rest == "type:veth" || rest == "driver:veth" || byName && matches(strings.TrimPrefix(glob, "="), sampleDevice)
		if takes && except {
			return false
		}
		matched = matched || takes
	}
	return matched
}

var networkdDirs = []string{"/etc/systemd/network", "/run/systemd/network", "/usr/local/lib/systemd/network", "/usr/lib/systemd/network", "/lib/systemd/network"}

// networkdRuns: the kernel keeps 15 letters of a process's name.
func (n *node) networkdRuns() bool { return n.processes()["systemd-network"] }

// checkNetworkd finds the first .network file that matches, which is the one that
// counts (systemd.network(5)).
func checkNetworkd(n *node) []Finding {
	if !n.networkdRuns() {
		return ok("does not run")
	}
	for _, file := range n.dropIns("*.network", networkdDirs...) {
		sections := readINI(file)
		if !takesOurs(sections) {
			continue
		}
		for _, s := range sections {
			if s.name == "Link" && isYes(s.last("Unmanaged")) {
				return ok("runs, and %s has it leave the devices alone", filepath.Base(file))
			}
		}
		return []Finding{{
			Level: Warning, Subject: filepath.Base(file), Found: "systemd-networkd runs, and this file takes zl* too",
			Means: "it configures the host veths: addresses, DHCP, and without their gateway address and routes",
			Mend: `printf '[Match]\nName=zl*\n[Link]\nUnmanaged=yes\n' > /etc/systemd/network/05-zipline.network && ` +
				"networkctl reload",
		}}
	}
	return ok("runs, and no .network file takes zl*")
}

// takesOurs says whether all conditions of [Match] hold for a host veth, as far
// as they can be judged; one that cannot be (a driver's, a host's) counts as not.
func takesOurs(sections []section) bool {
	for _, s := range sections {
		if s.name != "Match" || len(s.keys) == 0 {
			continue
		}
		for key, values := range s.keys {
			words := strings.Fields(strings.Join(values, " "))
			takes := false
			switch key {
			case "Name", "OriginalName":
				takes = matchesWords(words, sampleDevice)
			case "Type":
				takes = matchesWords(words, "ether")
			case "Kind":
				takes = matchesWords(words, "veth")
			case "Driver":
				takes = matchesWords(words, "veth")
			}
			if !takes {
				return false
			}
		}
		return true
	}
	return false
}

// matchesWords understands a list of globs, which a leading ! inverts.
func matchesWords(words []string, name string) bool {
	if len(words) == 0 {
		return false
	}
	first, inverted := strings.CutPrefix(words[0], "!")
	globs := append([]string{first}, words[1:]...)
	return inverted != slices.ContainsFunc(globs, func(glob string) bool { return matches(glob, name) })
}

func isYes(s string) bool {
	return slices.Contains([]string{"1", "yes", "y", "true", "t", "on"}, strings.ToLower(s))
}

// checkForeignRoutes: networkd drops routes without a device, such as the subnet
// guard, and rules of others whenever it configures a link.
func checkForeignRoutes(n *node) []Finding {
	if !n.networkdRuns() {
		return ok("systemd-networkd does not run")
	}
	files := n.dropIns("*.conf", "/etc/systemd/networkd.conf.d", "/run/systemd/networkd.conf.d", "/usr/local/lib/systemd/networkd.conf.d", "/usr/lib/systemd/networkd.conf.d")
	managed := map[string]string{"ManageForeignRoutes": "yes", "ManageForeignRoutingPolicyRules": "yes"}
	for _, file := range append([]string{n.path("/etc/systemd/networkd.conf")}, files...) {
		for _, s := range readINI(file) {
			for key := range managed {
				if value := s.last(key); s.name == "Network" && value != "" {
					managed[key] = value
				}
			}
		}
	}
	if !isYes(managed["ManageForeignRoutes"]) {
		return ok("ManageForeignRoutes is no")
	}
	return []Finding{{
		Level: Warning, Found: "systemd-networkd runs with ManageForeignRoutes=yes, its default",
		Means: "when it starts anew it removes routes that others made, such as the unreachable route of each subnet (CHECK then fails)",
		Mend: `mkdir -p /etc/systemd/networkd.conf.d && printf '[Network]\nManageForeignRoutes=no\nManageForeignRoutingPolicyRules=no\n' ` +
			"> /etc/systemd/networkd.conf.d/zipline.conf && systemctl restart systemd-networkd",
	}}
}

// checkFirewalld reads the zones' files: what was set at run time only is not
// there, so that it can say no more than "not told so for good".
func checkFirewalld(n *node) []Finding {
	if !n.processes()["firewalld"] {
		return ok("does not run")
	}
	zones := n.dropIns("*.xml", "/etc/firewalld/zones", "/usr/lib/firewalld/zones")
	var open []string
	for _, file := range zones {
		data, _ := os.ReadFile(file) // one that vanished is no zone
		text := string(data)
		accepts := strings.Contains(text, `target="ACCEPT"`)
		if accepts && (strings.Contains(text, `interface name="zl+"`) || strings.Contains(text, `interface name="zl*"`)) {
			return ok("runs, and zone %s accepts zl+", strings.TrimSuffix(filepath.Base(file), ".xml"))
		}
		if accepts {
			open = append(open, text)
		}
	}
	if n.allChain("firewall") {
		return ok("runs, and the chained plugin firewall tells it of each container")
	}
	if n.everySubnet(func(subnet string) bool {
		return slices.ContainsFunc(open, func(text string) bool { return strings.Contains(text, fmt.Sprintf("source address=%q", subnet)) })
	}) {
		return ok("runs, and a zone that accepts has every subnet")
	}
	return []Finding{{
		Level: Warning, Found: "runs, and no zone that accepts has zl+ or the networks' subnets",
		Means: "what containers send to the node and beyond is rejected, unless a rule made at run time accepts it",
		Mend:  "firewall-cmd --permanent --zone=trusted --add-interface=zl+ && firewall-cmd --reload",
	}}
}
