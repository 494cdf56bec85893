// SPDX-License-Identifier: Apache-2.0

package load

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/testutil"
)

func TestCallsThatNobodyTakesAreNoMeasurement(t *testing.T) {
	testutil.RequireRoot(t)
	listener, at, err := Listen("tcp", netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	e := End{Role: Call, Network: "tcp", Connections: 2, CPU: AnyCPU, Duration: time.Second}
	if _, err := connectHere(e, at); err == nil || !strings.Contains(err.Error(), "too long") {
		t.Errorf("calls that were not answered: %v", err)
	}
	_ = unix.Close(listener)
	if _, err := connectHere(e, at); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("calls that were refused: %v", err)
	}
}

// A server does not wait for ever.
func TestServerThatNobodyCalls(t *testing.T) {
	testutil.RequireRoot(t)
	listener, _, err := Listen("tcp", netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	e := End{Role: Echo, Network: "tcp", Connections: 1, CPU: AnyCPU}
	err = inNamespace(func() error {
		_, _, err := e.Serve(listener)
		return err
	})
	if !errors.Is(err, errSilent) {
		t.Errorf("nobody has connected: %v", err)
	}
}

// The caller closes first, so that the ports that have to rest are its own. They
// are many, and they rest for a second.
func TestPortsOfCallsRestAtTheClient(t *testing.T) {
	testutil.RequireRoot(t)
	e := End{Role: Answer, Network: "tcp", Connections: 4, CPU: AnyCPU, Duration: 50 * time.Millisecond}
	listener, at, err := Listen("tcp", netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		done <- inNamespace(func() error {
			_, _, err := e.Serve(listener)
			return err
		})
	}()
	client := e
	client.Role = Call
	m, err := connectHere(client, at)
	if err := errors.Join(err, <-done); err != nil {
		t.Fatal(err)
	}
	table, err := os.ReadFile("/proc/thread-self/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	const resting = "06"
	resters := map[bool]uint64{}
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		server := fmt.Sprintf(":%04X", at.Port())
		if fields[3] == resting && (strings.HasSuffix(fields[1], server) || strings.HasSuffix(fields[2], server)) {
			resters[strings.HasSuffix(fields[1], server)]++
		}
	}
	if resters[true] > 0 || resters[false] < m.Total/2 {
		t.Errorf("of %d connections the server has %d resting, and the client %d", m.Total, resters[true], resters[false])
	}
	for name, want := range map[string]string{"tcp_tw_reuse": "1", "ip_local_port_range": "20000\t65535"} {
		got, err := os.ReadFile("/proc/sys/net/ipv4/" + name)
		if err != nil || strings.TrimSpace(string(got)) != want {
			t.Errorf("%s is %q, %v; want %q", name, got, err, want)
		}
	}
}
