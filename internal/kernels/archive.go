// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// suites of Debian that are searched for kernels.
var suites = []string{"bullseye", "bookworm", "trixie", "trixie-backports", "sid"}

// keyring is where Debian's package debian-archive-keyring has the keys.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// archive is the mirror of Debian that apt is configured with, seen through
// lists and caches of our own.
type archive struct {
	dir   string
	fresh bool
}

// kernel is an unpacked kernel.
type kernel struct {
	series  string
	release string // as uname -r says it
	image   string // file to boot
	modules string // directory with kernel/, as in /lib/modules/RELEASE
}

// kernel returns the newest kernel of a series, downloaded where it is not yet.
func (a *archive) kernel(ctx context.Context, cache, series string) (*kernel, error) {
	names, err := a.images(ctx)
	if err != nil {
		return nil, fmt.Errorf("find kernel %s: %w", series, err)
	}
	release := newest(names, series)
	if release == "" {
		return nil, fmt.Errorf("find kernel %s: the mirror has none of %s", series, strings.Join(suites, ", "))
	}
	k := &kernel{series: series, release: release, image: filepath.Join(cache, release, "vmlinuz")}
	k.modules = filepath.Join(cache, release, "lib", "modules", release)
	if _, err := os.Stat(filepath.Join(cache, release)); err == nil {
		return k, nil
	}
	staging, err := os.MkdirTemp(cache, "unpack-")
	if err != nil {
		return nil, fmt.Errorf("unpack kernel: %w", err)
	}
	defer func() { _ = os.RemoveAll(staging) }()
	if err := a.unpack(ctx, release, staging); err != nil {
		return nil, fmt.Errorf("unpack kernel %s: %w", release, err)
	}
	// The directory appears whole or not at all.
	return k, os.Rename(filepath.Join(staging, "root"), filepath.Join(cache, release))
}

// images lists the releases of cloud kernels that the mirror has.
func (a *archive) images(ctx context.Context) ([]string, error) {
	if err := a.update(ctx); err != nil {
		return nil, err
	}
	out, err := a.apt(ctx, "", "apt-cache", "pkgnames", "linux-image-")
	if err != nil {
		return nil, err
	}
	var releases []string
	for _, name := range strings.Fields(out) {
		release := strings.TrimPrefix(name, "linux-image-")
		if strings.HasSuffix(release, "-cloud-amd64") && release[0] >= '0' && release[0] <= '9' {
			releases = append(releases, release)
		}
	}
	return releases, nil
}

// update fetches the lists of packages, once a day.
func (a *archive) update(ctx context.Context) error {
	stamp := filepath.Join(a.dir, "updated")
	if info, err := os.Stat(stamp); a.fresh || err == nil && time.Since(info.ModTime()) < 24*time.Hour {
		return nil
	}
	for _, dir := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(a.dir, dir), 0o755); err != nil {
			return err
		}
	}
	mirror, err := mirror(ctx)
	if err != nil {
		return err
	}
	var sources strings.Builder
	for _, suite := range suites {
		_, _ = fmt.Fprintf(&sources, "deb [arch=amd64 signed-by=%s] %s %s main\n", keyring, mirror, suite)
	}
	if err := os.WriteFile(filepath.Join(a.dir, "sources.list"), []byte(sources.String()), 0o644); err != nil {
		return err
	}
	if _, err := a.apt(ctx, "", "apt-get", "update"); err != nil {
		return err
	}
	a.fresh = true
	return os.WriteFile(stamp, nil, 0o644)
}

// mirror returns the address that this machine's apt has Debian from.
func mirror(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets",
		"--format", "$(SITE)", "Created-By: Packages", "Origin: Debian", "Label: Debian").Output()
	if err != nil {
		return "", fmt.Errorf("read apt's sources: %w", err)
	}
	sites := strings.Fields(string(out))
	if len(sites) == 0 {
		return "", errors.New("apt of this machine has no mirror of Debian")
	}
	return sites[0], nil
}

// unpack downloads the packages of a release and puts the kernel and its
// network modules into staging/root.
func (a *archive) unpack(ctx context.Context, release, staging string) error {
	packages := []string{"linux-image-" + release}
	// Newer releases keep the kernel and its modules in packages of their own.
	depends, err := a.apt(ctx, "", "apt-cache", "depends", packages[0])
	if err != nil {
		return err
	}
	for _, part := range []string{"linux-binary-", "linux-modules-"} {
		if strings.Contains(depends, part+release) {
			packages = append(packages, part+release)
		}
	}
	for _, name := range packages {
		if _, err := a.apt(ctx, staging, "apt-get", "download", name); err != nil {
			return err
		}
	}
	debs, err := filepath.Glob(filepath.Join(staging, "*.deb"))
	if err != nil {
		return err
	}
	for _, deb := range debs {
		if out, err := exec.CommandContext(ctx, "dpkg-deb", "-x", deb, filepath.Join(staging, "all")).CombinedOutput(); err != nil {
			return fmt.Errorf("unpack %s: %w\n%s", deb, err, out)
		}
	}
	return keepNetwork(ctx, filepath.Join(staging, "all"), filepath.Join(staging, "root"), release)
}

// apt runs a program of apt's in dir with lists and caches of our own.
func (a *archive) apt(ctx context.Context, dir, name string, args ...string) (string, error) {
	set := []string{
		"-q", "-o", "Dir::Etc::sourcelist=" + filepath.Join(a.dir, "sources.list"),
		"-o", "Dir::Etc::sourceparts=/dev/null", "-o", "Dir::State::status=/dev/null",
		"-o", "Dir::State::lists=" + filepath.Join(a.dir, "lists"), "-o", "Dir::Cache=" + filepath.Join(a.dir, "cache"),
		"-o", "Acquire::Languages=none", "-o", "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
		"-o", "APT::Architecture=amd64", "-o", "APT::Sandbox::User=root",
	}
	cmd := exec.CommandContext(ctx, name, append(set, args...)...)
	cmd.Dir = dir
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, args[0], err, stderr.String())
	}
	return string(out), nil
}

var digits = regexp.MustCompile(`\d+`)

// newest returns the highest of the releases that belong to a series; "" if
// none does.
func newest(releases []string, series string) string {
	best, bestNumbers := "", []int(nil)
	for _, release := range releases {
		if !strings.HasPrefix(release, series) || strings.ContainsAny(release[len(series):][:1], "0123456789") {
			continue
		}
		if n := numbers(release); best == "" || slices.CompareFunc(n, bestNumbers, cmp.Compare) > 0 {
			best, bestNumbers = release, n
		}
	}
	return best
}

// numbers returns the numbers of a release, in their order.
func numbers(release string) []int {
	var list []int
	for _, text := range digits.FindAllString(release, -1) {
		n, err := strconv.Atoi(text)
		if err != nil {
			continue // longer than any version's number
		}
		list = append(list, n)
	}
	return list
}
