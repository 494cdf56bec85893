// SPDX-License-Identifier: Apache-2.0

// Case files: reading them strictly, and those that every run has.

package bench

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/version"
)

//go:embed cases/*.json
var caseFiles embed.FS

// DefaultCases returns the cases of the files in bench/cases, in their order.
func DefaultCases() ([]Case, error) {
	entries, err := caseFiles.ReadDir("cases")
	if err != nil {
		return nil, fmt.Errorf("list cases: %w", err)
	}
	var cases []Case
	for _, entry := range entries {
		text, err := caseFiles.ReadFile("cases/" + entry.Name())
		if err != nil {
			return nil, fmt.Errorf("read case: %w", err)
		}
		c, err := ParseCase(text)
		if err != nil {
			return nil, fmt.Errorf("read case %s: %w", entry.Name(), err)
		}
		cases = append(cases, c)
	}
	return cases, nil
}

// AddCases returns the cases with those of files behind them. A name may be there
// only once.
func AddCases(cases []Case, files ...string) ([]Case, error) {
	all := slices.Clone(cases)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read case: %w", err)
		}
		c, err := ParseCase(text)
		if err != nil {
			return nil, fmt.Errorf("read case %s: %w", file, err)
		}
		if slices.ContainsFunc(all, func(other Case) bool { return other.Name == c.Name }) {
			return nil, fmt.Errorf("read case %s: there is a case %q already", file, c.Name)
		}
		all = append(all, c)
	}
	return all, nil
}

// ParseCase reads the text of a case file. It is strict: what it does not know is
// an error that names the key, because a misspelled switch would measure
// something else than its author believes.
func ParseCase(text []byte) (Case, error) {
	var c Case
	fields := map[string]any{
		"name": &c.Name, "title": &c.Title, "kind": &c.Kind, "network": &c.Network, "pluginPath": &c.PluginPath,
		"bridgeNetfilter": &c.BridgeNetfilter, "carried": &c.Carried, "growth": &c.Growth,
		"paths": &c.Paths, "workloads": &c.Workloads, "connections": &c.Connections,
	}
	err := eachKey(text, func(key string, decoder *json.Decoder) error {
		field, known := fields[key]
		if !known {
			return fmt.Errorf("unknown key %q, or twice", key)
		}
		delete(fields, key)
		if err := decoder.Decode(field); err != nil {
			return fmt.Errorf("key %q: %w", key, err)
		}
		return nil
	})
	if err != nil {
		return Case{}, err
	}
	if err := c.validate(); err != nil {
		return Case{}, err
	}
	return c, nil
}

// eachKey calls f for each key of a JSON object, to decode its value.
func eachKey(text []byte, f func(key string, decoder *json.Decoder) error) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	if open, err := decoder.Token(); err != nil {
		return fmt.Errorf("parse case: %w", err)
	} else if open != json.Delim('{') {
		return errors.New("parse case: not a JSON object")
	}
	for decoder.More() {
		token, err := decoder.Token()
		if err != nil {
			return fmt.Errorf("parse case: %w", err)
		}
		key, _ := token.(string) // nothing else can be one
		if err := f(key, decoder); err != nil {
			return err
		}
	}
	if _, err := decoder.Token(); err != nil {
		return fmt.Errorf("parse case: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("parse case: text behind the object")
	}
	return nil
}

// maxConnections is more than any machine has CPUs for.
const maxConnections = 1024

// caseName is what a name may be: it stands in tables, plots and lists with commas.
var caseName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9 ._+-]{0,23}$`)

func (c Case) validate() error {
	if !caseName.MatchString(string(c.Name)) || strings.HasSuffix(string(c.Name), " ") {
		return fmt.Errorf(`key "name": %q is not 1 to 24 letters, digits, spaces and "._+-", from a letter or digit on`, c.Name)
	}
	if c.Title == "" || strings.ContainsAny(c.Title, "\r\n") {
		return errors.New(`key "title": not one line of text`)
	}
	if err := oneOf("kind", c.Kind, KindLoopback, KindWire, KindPlugin); err != nil {
		return err
	}
	if err := oneOf("carried", c.Carried, "", CarrierKernel, CarrierEBPF, CarrierNeighbours); err != nil {
		return err
	}
	if err := c.validateNetwork(); err != nil {
		return err
	}
	if err := someOf("paths", c.Paths, Paths); err != nil {
		return err
	}
	if err := someOf("workloads", c.Workloads, Workloads); err != nil {
		return err
	}
	for _, n := range c.Connections {
		if n < 1 || n > maxConnections {
			return fmt.Errorf(`key "connections": %d is not 1 to %d`, n, maxConnections)
		}
	}
	return nil
}

// validateNetwork checks the keys that only a plugin's case has.
func (c Case) validateNetwork() error {
	if c.Kind != KindPlugin {
		for key, set := range map[string]bool{
			"network": c.Network != nil, "pluginPath": c.PluginPath != nil, "bridgeNetfilter": c.BridgeNetfilter,
			"carried": c.Carried != "", "growth": c.Growth,
		} {
			if set {
				return fmt.Errorf("key %q: only for kind %q", key, KindPlugin)
			}
		}
		return nil
	}
	for _, dir := range c.PluginPath {
		if !filepath.IsAbs(dir) {
			return fmt.Errorf(`key "pluginPath": %q is no absolute path`, dir)
		}
	}
	_, err := c.list()
	return err
}

// list returns the network as a runtime reads it.
func (c Case) list() (*libcni.NetworkConfigList, error) {
	if c.Network == nil {
		return nil, fmt.Errorf(`key "network": missing, but kind is %q`, KindPlugin)
	}
	list, err := libcni.NetworkConfFromBytes(c.Network)
	if err != nil {
		return nil, fmt.Errorf(`key "network": %w`, err)
	}
	if len(list.Plugins) == 0 {
		return nil, errors.New(`key "network": it has no plugins`)
	}
	if known := version.All.SupportedVersions(); !slices.Contains(known, list.CNIVersion) {
		return nil, fmt.Errorf(`key "network": cniVersion %q is not one of %q`, list.CNIVersion, known)
	}
	return list, nil
}

// programs returns the types of the plugins that the network names, IPAM plugins
// among them.
func (c Case) programs() ([]string, error) {
	list, err := c.list()
	if err != nil {
		return nil, err
	}
	var types []string
	for _, p := range list.Plugins {
		for _, t := range []string{p.Network.Type, p.Network.IPAM.Type} {
			if t != "" && !slices.Contains(types, t) {
				types = append(types, t)
			}
		}
	}
	return types, nil
}

// mapsPorts says whether a plugin of the network publishes ports.
func (c Case) mapsPorts() (bool, error) {
	list, err := c.list()
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(list.Plugins, func(p *libcni.PluginConfig) bool {
		return p.Network.Capabilities["portMappings"]
	}), nil
}

// takesPart says whether a case is among those of a cell.
func (c Case) takesPart(in cell) bool {
	return within(c.Paths, in.path) && within(c.Workloads, in.workload) && within(c.Connections, in.connections)
}

// within says whether a list has a value; one without values has all.
func within[T comparable](list []T, value T) bool {
	return len(list) == 0 || slices.Contains(list, value)
}

func oneOf[T ~string](key string, value T, allowed ...T) error {
	if slices.Contains(allowed, value) {
		return nil
	}
	return fmt.Errorf("key %q: %q is not one of %q", key, value, allowed)
}

// someOf accepts values that are all allowed and there once.
func someOf[T ~string](key string, values, allowed []T) error {
	for i, v := range values {
		if err := oneOf(key, v, allowed...); err != nil {
			return err
		}
		if slices.Contains(values[:i], v) {
			return fmt.Errorf("key %q: %q is there twice", key, v)
		}
	}
	return nil
}
