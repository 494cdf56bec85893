// SPDX-License-Identifier: Apache-2.0

package ipam

import (
	"bufio"
	"io"
	"os"
	"strings"
)

// DNS is what a resolv.conf says.
type DNS struct {
	Nameservers []string // as written, addresses or not
	Domain      string   // the last one
	Search      []string
	Options     []string
}

// readResolvConf reads the file at path. Errors are *IOError.
func readResolvConf(path string) (DNS, error) {
	file, err := os.Open(path)
	if err != nil {
		return DNS{}, ioError("open", path, err)
	}
	defer file.Close()
	dns, err := parseResolvConf(file)
	if err != nil {
		return DNS{}, ioError("read", path, err)
	}
	return dns, nil
}

// parseResolvConf understands what host-local understands: comments only at the
// start of a line, unknown keywords and keywords without a value are skipped, a
// later domain replaces an earlier one and all other keywords add up.
func parseResolvConf(r io.Reader) (DNS, error) {
	var dns DNS
	scanner := bufio.NewScanner(r)
	for scanner.Scan() {
		line := strings.TrimSpace(scanner.Text())
		if strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";") {
			continue
		}
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "nameserver":
			dns.Nameservers = append(dns.Nameservers, fields[1])
		case "domain":
			dns.Domain = fields[1]
		case "search":
			dns.Search = append(dns.Search, fields[1:]...)
		case "options":
			dns.Options = append(dns.Options, fields[1:]...)
		}
	}
	return dns, scanner.Err()
}
