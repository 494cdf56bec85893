// SPDX-License-Identifier: Apache-2.0

package filter

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/net/bpf"

	"github.com/zipline-cni/zipline/internal/testutil"
)

// reference is the program that tcpdump makes of an expression.
func reference(t *testing.T, expression string) *bpf.VM {
	t.Helper()
	out, err := exec.Command("tcpdump", "-ddd", "-y", "EN10MB", "-s", "262144", expression).CombinedOutput()
	if err != nil {
		t.Fatalf("tcpdump %q: %v\n%s", expression, err, out)
	}
	var raw []bpf.RawInstruction
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		var i bpf.RawInstruction
		if n, _ := fmt.Sscan(line, &i.Op, &i.Jt, &i.Jf, &i.K); n == 4 {
			raw = append(raw, i)
		}
	}
	return machine(t, raw)
}

func machine(t *testing.T, raw []bpf.RawInstruction) *bpf.VM {
	t.Helper()
	program, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatalf("unknown instructions: %v", program)
	}
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

func TestExpressionsMeanWhatTcpdumpMeans(t *testing.T) {
	testutil.RequireProgram(t, "tcpdump")
	packets := corpus()
	for _, expression := range expressions {
		raw, err := Compile(expression, 262144)
		if err != nil {
			t.Errorf("%q: %v", expression, err)
			continue
		}
		ours, theirs := machine(t, raw), reference(t, expression)
		passed, differ := 0, 0
		for _, p := range packets {
			have, _ := ours.Run(p)
			want, _ := theirs.Run(p)
			if (have > 0) != (want > 0) {
				if differ++; differ == 1 {
					t.Errorf("%q: passes %v, tcpdump's passes %v: %x", expression, have > 0, want > 0, p)
				}
			}
			if want > 0 {
				passed++
			}
		}
		if passed == 0 || passed == len(packets) && expression != "net 0.0.0.0/0" {
			t.Errorf("%q passes %d of %d packets: the comparison says nothing", expression, passed, len(packets))
		}
	}
}

func TestWhatIsNotKnownIsAnError(t *testing.T) {
	for _, expression := range []string{
		"nonsense", "tcp and", "and tcp", "(tcp", "tcp)", "not", "port", "port x", "port 70000", "host", "host 10.0.0.300",
		"net 10.0.0.1/8", "net 10.0.0.0/33", "portrange 80", "less", "less x", "tcp host 10.0.0.1", "ip6 host 10.0.0.1",
		"ip host ::1", "ether proto tcp", "ether host 10.0.0.1", "icmp port 80", "vlan 5", "tcp[13] & 2 != 0", "len > 60",
		"src tcp", "dst", "src proto 6", "gateway x", "port 80 or", "ip broadcast", "arp port 80", "tcp udp",
		"ip6 src multicast", "ip host multicast", "ether dst broadcast", "ether proto broadcast",
	} {
		if program, err := Compile(expression, 96); err == nil {
			t.Errorf("%q compiles to %d instructions", expression, len(program))
		}
	}
	program, err := Compile("", 96)
	if err != nil {
		t.Fatal(err)
	}
	if n, _ := machine(t, program).Run(make([]byte, 60)); n != 96 {
		t.Errorf("the empty expression passes %d bytes", n)
	}
}

// FuzzCompile looks for expressions that make it fall over, or make programs that
// the kernel would refuse.
func FuzzCompile(f *testing.F) {
	for _, expression := range expressions {
		f.Add(expression, []byte{0, 1, 2})
	}
	f.Fuzz(func(t *testing.T, expression string, packet []byte) {
		raw, err := Compile(expression, 96)
		if err != nil {
			return
		}
		if n, err := machine(t, raw).Run(packet); err != nil || n != 0 && n != 96 {
			t.Errorf("%q passes %d bytes: %v", expression, n, err)
		}
	})
}
