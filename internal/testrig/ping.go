// SPDX-License-Identifier: Apache-2.0

package testrig

import (
	"fmt"
	"net/netip"
)

// PingOptions shape the echo request of [Namespace.PingWith]. The zero value is one
// ordinary request.
type PingOptions struct {
	// Size is the number of data bytes; 0 means 56.
	Size int
	// DontFragment sets DF and refuses to fragment on the sender.
	DontFragment bool
	// TTL is the TTL or hop limit. Optional.
	TTL int
	// Source is the address to bind to. Optional.
	Source netip.Addr
	// RecordRoute asks for the IPv4 option of that name.
	RecordRoute bool
	// Negative says that no answer is expected: the wait is short and there is
	// one request only.
	Negative bool
}

// Ping sends an ICMP or ICMPv6 echo request, repeats it if it is not answered, and
// waits for the answer. The error holds what the ping program printed, ICMP errors
// among it.
func (ns *Namespace) Ping(dst netip.Addr) error {
	_, err := ns.PingWith(dst, PingOptions{})
	return err
}

// PingWith is [Namespace.Ping] with options. It returns what was printed, also
// with an error.
func (ns *Namespace) PingWith(dst netip.Addr, opts PingOptions) (string, error) {
	wait, tries := Timeout/attempts, attempts
	if opts.Negative {
		wait, tries = Patience, 1
	}
	args := []string{"-n", "-c1", "-W", fmt.Sprintf("%.2f", wait.Seconds())}
	if opts.Size != 0 {
		args = append(args, "-s", fmt.Sprint(opts.Size))
	}
	if opts.DontFragment {
		args = append(args, "-M", "do")
	}
	if opts.TTL != 0 {
		args = append(args, "-t", fmt.Sprint(opts.TTL))
	}
	if opts.Source.IsValid() {
		args = append(args, "-I", opts.Source.String())
	}
	if opts.RecordRoute {
		args = append(args, "-R")
	}
	args = append(args, dst.String())
	for {
		out, err := ns.Run("ping", args...)
		if tries--; err == nil || tries == 0 {
			if err != nil {
				err = fmt.Errorf("%w\n%s", err, out)
			}
			return out, err
		}
	}
}
