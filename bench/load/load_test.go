// SPDX-License-Identifier: Apache-2.0

package load

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/testutil"
)

// TestMain does what a process has to that calls Connect or Serve: see the package
// comment. Here both ends are in one process, and each keeps one of the scheduler's
// places. Root's tests have a namespace of their own, whose settings they change.
func TestMain(m *testing.M) {
	if os.Getenv("GODEBUG") == "" {
		runtime.LockOSThread()
		if os.Geteuid() == 0 {
			must(unix.Unshare(unix.CLONE_NEWNET))
			must(loopbackUp())
		}
		must(unix.Exec("/proc/self/exe", os.Args, append(os.Environ(), Env)))
	}
	debug.SetGCPercent(-1)
	runtime.GOMAXPROCS(max(4, runtime.NumCPU()))
	os.Exit(m.Run())
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
}

// inNamespace calls f on a thread of its own, where the test is.
func inNamespace(f func() error) error { return InNamespace("/proc/thread-self/ns/net", f) }

func connectHere(e End, to netip.AddrPort) (m Measurement, err error) {
	err = inNamespace(func() (err error) {
		m, err = e.Connect(to)
		return err
	})
	return m, err
}

// run runs both ends over the loopback device and returns what each saw.
func run(t *testing.T, server, client End, at string) (served, measured Measurement, peer netip.Addr) {
	t.Helper()
	listener, addr, err := Listen(server.Network, netip.AddrPortFrom(netip.MustParseAddr(at), 0))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		done <- inNamespace(func() (err error) {
			served, peer, err = server.Serve(listener)
			return err
		})
	}()
	if measured, err = connectHere(client, addr); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	return served, measured, peer
}

func TestEveryPairOfRolesMeasures(t *testing.T) {
	testutil.RequireRoot(t) // for a receive buffer above the machine's limit
	const d = 50 * time.Millisecond
	for _, c := range []struct {
		name, network, at string
		server, client    Role
	}{
		{"ping over tcp", "tcp", "127.0.0.1", Echo, Ping},
		{"ping over udp", "udp", "127.0.0.1", Echo, Ping},
		{"ping over tcp, ipv6", "tcp", "::1", Echo, Ping},
		{"ping over udp, ipv6", "udp", "::1", Echo, Ping},
		{"calls", "tcp", "127.0.0.1", Answer, Call},
		{"calls, ipv6", "tcp", "::1", Answer, Call},
		{"bulk to the server", "tcp", "127.0.0.1", Receive, Send},
		{"bulk to the client", "tcp", "127.0.0.1", Send, Receive},
		{"datagrams", "udp", "127.0.0.1", Receive, Send},
		{"datagrams, ipv6", "udp", "::1", Receive, Send},
	} {
		for _, connections := range []int{1, 2, 32, 100} {
			t.Run(fmt.Sprintf("%s, %d", c.name, connections), func(t *testing.T) {
				server := End{Role: c.server, Network: c.network, Connections: connections, Size: 64, CPU: 0, Warmup: d, Duration: d}
				client := server
				client.Role = c.client
				served, measured, peer := run(t, server, client, c.at)
				if c.server == Receive {
					served, measured = measured, served
				}
				if served.Thread <= 0 || measured.Thread <= 0 || measured.Thread > 1 || measured.Total <= measured.Units {
					t.Errorf("threads took %v s and %v s for %d units", served.Thread, measured.Thread, measured.Total)
				}
				if served.Thread, served.User = 0, 0; served != (Measurement{}) {
					t.Errorf("the end that does not measure says %+v", served)
				}
				if measured.Seconds < d.Seconds() || measured.Units < 100 || measured.Lost > 0 {
					t.Errorf("measured %+v", measured)
				}
				if timed := c.client == Ping || c.client == Call; timed != (measured.Latency.P50 > 0) {
					t.Errorf("latency %+v", measured.Latency)
				}
				if peer != netip.MustParseAddr(c.at) {
					t.Errorf("peer is %s", peer)
				}
				t.Logf("%.0f/s, %+v", float64(measured.Units)/measured.Seconds, measured)
			})
		}
	}
}

func TestMissingNamespaceIsAnError(t *testing.T) {
	err := InNamespace("/proc/self/ns/none", func() error { return nil })
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("entering a namespace that is not there: %v", err)
	}
}
