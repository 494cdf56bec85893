// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket/pcapgo"

	"github.com/zipline-cni/zipline/internal/testrig"
	"github.com/zipline-cni/zipline/internal/testutil"
)

func (n *watchedNode) capture(tb testing.TB, args ...string) *running {
	tb.Helper()
	r := n.start(tb, append([]string{"capture"}, args...)...)
	r.ready(tb, "capturing")
	return r
}

// recorded is what a file has.
type recorded struct {
	in, out  [][]byte
	lengths  []int
	stats    pcapgo.NgInterfaceStatistics
	name     string
	earliest time.Time
}

func readCapture(t *testing.T, data string) *recorded {
	t.Helper()
	reader, err := pcapgo.NewNgReader(strings.NewReader(data), pcapgo.DefaultNgReaderOptions)
	if err != nil {
		t.Fatal(err)
	}
	r := &recorded{}
	for {
		frame, info, options, err := reader.ReadPacketDataWithOptions()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if r.earliest.IsZero() {
			r.earliest = info.Timestamp
		}
		r.lengths = append(r.lengths, info.Length)
		switch {
		case options.Flags == nil:
			t.Error("a packet without flags")
		case options.Flags.Direction == pcapgo.NgEpbFlagDirectionInbound:
			r.in = append(r.in, frame)
		case options.Flags.Direction == pcapgo.NgEpbFlagDirectionOutbound:
			r.out = append(r.out, frame)
		}
	}
	i, err := reader.Interface(0)
	if err != nil {
		t.Fatal(err)
	}
	r.stats, r.name = i.Statistics, i.Name
	return r
}

// tcpdump is the lines that it makes of a file.
func tcpdump(t *testing.T, data string, args ...string) []string {
	t.Helper()
	cmd := exec.Command("tcpdump", append([]string{"-n", "-r", "-"}, args...)...)
	cmd.Stdin = strings.NewReader(data)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("tcpdump: %v: %s", err, errs.String())
	}
	return strings.Split(strings.TrimRight(string(out), "\n"), "\n")
}

// byFamily puts frames of IPv4 before those of IPv6: the two CPUs work on one each,
// and may be seen to do so in another order at another place.
func byFamily(frames [][]byte) {
	slices.SortStableFunc(frames, func(a, b []byte) int { return bytes.Compare(a[12:14], b[12:14]) })
}

// TestCaptureHasWhatTheContainerSees compares with what a sniffer in the
// container sees, in both directions, whether eBPF carries the packets or not. At
// the host veth nothing is seen of those that it delivers past it.
func TestCaptureHasWhatTheContainerSees(t *testing.T) {
	testutil.RequireProgram(t, "tcpdump")
	for _, forwarding := range []string{"direct", "tracked", "kernel"} {
		t.Run(forwarding, func(t *testing.T) {
			n := newWatchedNode(t, forwarding, 2)
			sniffer, onHost := n.pods[1].Sniff(t, testrig.IfName), n.Node.Sniff(t, n.pods[1].device)
			begin := time.Now()
			r := n.capture(t, "pod1", "-w", "-", "tcp")
			v4, v6 := n.echo(t, 5)
			n.pods[1].outgoing(t, n.outside(t))
			time.Sleep(300 * time.Millisecond)
			data := r.stop(t)
			file := readCapture(t, data)
			for _, way := range []struct {
				name   string
				out    bool
				frames [][]byte
			}{{"in", false, file.in}, {"out", true, file.out}} {
				want := sniffer.Matching(func(c testrig.Captured) bool { return c.Protocol == 6 && c.Outgoing == way.out })
				if len(want) < 40 || len(way.frames) != len(want) {
					t.Errorf("%s: %d frames, the container has %d", way.name, len(way.frames), len(want))
					continue
				}
				var inside [][]byte
				for _, c := range want {
					inside = append(inside, c.Frame)
				}
				byFamily(way.frames)
				byFamily(inside)
				for i, frame := range way.frames {
					if string(frame) != string(inside[i]) {
						t.Errorf("%s: frame %d is %x, want %x", way.name, i, frame, inside[i])
						break
					}
				}
			}
			fromPod0 := func(c testrig.Captured) bool {
				return c.Protocol == 6 && (c.Src == n.pods[0].v4 || c.Src == n.pods[0].v6)
			}
			if there, seen := sniffer.Matching(fromPod0), onHost.Matching(fromPod0); len(there) < 40 ||
				forwarding == "direct" && len(seen) > 0 || forwarding == "kernel" && len(seen) != len(there) {
				t.Errorf("of %d packets between the containers %d are seen at the host veth", len(there), len(seen))
			}
			total := len(file.in) + len(file.out)
			if file.stats.PacketsReceived != uint64(total) || file.stats.PacketsDropped != 0 || file.name != "net/pod1" {
				t.Errorf("statistics %+v of %q, %d packets", file.stats, file.name, total)
			}
			if file.earliest.Before(begin) || time.Since(file.earliest) > time.Minute {
				t.Errorf("first packet at %v", file.earliest)
			}
			wantLines(t, data, total, v4, v6)
		})
	}
}

// outgoing lets a pod talk to a server outside.
func (p *watchedPod) outgoing(t *testing.T, to netip.AddrPort) {
	t.Helper()
	if _, err := p.EchoTCP(to, []byte("hello"), testrig.Socket{}); err != nil {
		t.Fatal(err)
	}
}

// wantLines checks that tcpdump reads the file to its end, and both sides of each flow.
func wantLines(t *testing.T, data string, total int, v4, v6 netip.AddrPort) {
	t.Helper()
	lines := tcpdump(t, data)
	if len(lines) != total {
		t.Errorf("tcpdump reads %d packets of %d", len(lines), total)
	}
	for _, a := range []netip.AddrPort{v4, v6} {
		name := fmt.Sprintf("%s.%d", a.Addr(), a.Port())
		text := strings.Join(lines, "\n")
		if !strings.Contains(text, "> "+name+": Flags [S]") || !strings.Contains(text, name+" > ") {
			t.Errorf("tcpdump does not show both sides of %s", name)
		}
	}
}

func TestCaptureOptions(t *testing.T) {
	testutil.RequireProgram(t, "tcpdump")
	n := newWatchedNode(t, "direct", 2)
	v4, _ := n.echo(t, 1)
	path := filepath.Join(t.TempDir(), "file.pcapng")
	// The node's mounts are its own, but this directory is in both.
	r := n.capture(t, n.pods[1].v4.String(), "-w", path, "--count", "7", "--snaplen", "60", "tcp", "port", fmt.Sprint(v4.Port()), "and", "greater", "500")
	for range 10 {
		if _, err := n.pods[0].EchoTCP(v4, make([]byte, 1000), testrig.Socket{}); err != nil {
			t.Fatal(err)
		}
	}
	if out := r.wait(t); out != "" {
		t.Errorf("stdout %q", out)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	file := readCapture(t, string(data))
	if len(file.in)+len(file.out) != 7 || !strings.Contains(r.err.String(), "7 packets, 0 dropped") {
		t.Errorf("%d packets, stderr %q", len(file.in)+len(file.out), r.err.String())
	}
	for i, frame := range append(file.in, file.out...) {
		if len(frame) != 60 || file.lengths[i] < 500 {
			t.Errorf("frame of %d bytes, %d on the wire", len(frame), file.lengths[i])
		}
	}
	begin := time.Now()
	n.capture(t, "pod0", "-w", "-", "--duration", "300ms").wait(t)
	if took := time.Since(begin); took < 300*time.Millisecond || took > 10*time.Second {
		t.Errorf("--duration 300ms took %v", took)
	}
}

func TestCaptureUsage(t *testing.T) {
	n := newWatchedNode(t, "direct", 1)
	for _, line := range []string{"", "pod0", "pod0 -w - nonsense", "nobody -w -", "pod0 -w - tcp and", "pod0 -w - --duration -1s"} {
		code, _, errs := inNode(t, n.Node, append([]string{"capture"}, strings.Fields(line)...)...)
		if code != exitUsage || strings.Count(errs, "\n") != 1 {
			t.Errorf("%q: exit code %d, stderr %q", line, code, errs)
		}
	}
}

// TestCaptureSparesTheTerminal does so without colours too.
func TestCaptureSparesTheTerminal(t *testing.T) {
	testutil.RequireRoot(t)
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = terminal.Close() }()
	var errs strings.Builder
	if code := run([]string{"capture", "nobody", "-w", "-"}, streams{out: terminal, err: &errs}); code != exitUsage || !strings.Contains(errs.String(), "is a terminal") {
		t.Errorf("exit code %d, stderr %q", code, errs.String())
	}
}
