// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// sysctlPath turns a slash-separated name below net/ into its file. Slashes,
// since device names may hold dots.
func sysctlPath(name string) string { return "/proc/sys/net/" + name }

func readSysctl(name string) (string, error) {
	data, err := os.ReadFile(sysctlPath(name))
	if err != nil {
		return "", fmt.Errorf("read sysctl: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}

func writeSysctl(name, value string) error {
	if err := os.WriteFile(sysctlPath(name), []byte(value), 0); err != nil {
		return fmt.Errorf("write sysctl: %w", err)
	}
	return nil
}

// writeSysctls writes several switches below one directory, which is looked up
// once. That is what a switch costs where there are many network namespaces: the
// ipv4 and ipv6 of all of them are in one chain of the kernel's directory cache,
// and each look-up walks along it (proc_sys_compare).
func writeSysctls(dir string, values map[string]string) (err error) {
	root, err := os.OpenRoot(sysctlPath(dir))
	if err != nil {
		return fmt.Errorf("write sysctls: %w", err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	for name, value := range values {
		if err := root.WriteFile(name, []byte(value), 0); err != nil {
			return fmt.Errorf("write sysctl of %s: %w", dir, err)
		}
	}
	return nil
}

// ensureSysctl writes only a value that differs: some switches, such as
// ip_forward, make the kernel walk every device.
func ensureSysctl(name, value string) error {
	have, err := readSysctl(name)
	if err != nil {
		return err
	}
	if have == value {
		return nil
	}
	return writeSysctl(name, value)
}

// sysctlIs reports whether a switch has the value; one that does not exist has not.
func sysctlIs(name, value string) bool {
	have, err := readSysctl(name)
	return err == nil && have == value
}

// MinMTU6 is the least MTU of a device that has IPv6 (IPV6_MIN_MTU, RFC 8200,
// section 5); the kernel takes IPv6 off a device with less.
const MinMTU6 = 1280

// haveIPv6 says whether the devices of the pair have IPv6.
func (p *Pair) haveIPv6() bool {
	if p.MTU != 0 && p.MTU < MinMTU6 {
		return false
	}
	// Not from the sysctls: see writeSysctls.
	_, err := os.Stat("/proc/self/net/if_inet6")
	return !errors.Is(err, os.ErrNotExist)
}
