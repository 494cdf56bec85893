// SPDX-License-Identifier: Apache-2.0

package coverage

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"

	"github.com/zipline-cni/zipline/internal/testutil"
)

// run instruments a program, runs it on a packet whose first byte is input, and
// returns its result, the probes and which of them ran.
func run(t *testing.T, insns asm.Instructions, input byte) (uint32, []Probe, []byte) {
	t.Helper()
	testutil.RequireRoot(t)
	spec := &ebpf.CollectionSpec{
		Maps: map[string]*ebpf.MapSpec{},
		Programs: map[string]*ebpf.ProgramSpec{
			"p": {Name: "p", Type: ebpf.SchedCLS, License: "GPL", Instructions: slices.Clone(insns)},
		},
	}
	probes, err := Instrument(spec)
	if err != nil {
		t.Fatal(err)
	}
	c, err := ebpf.NewCollection(spec)
	if err != nil {
		t.Fatalf("load %v: %+v", spec.Programs["p"].Instructions, err)
	}
	defer c.Close()
	packet := make([]byte, 64)
	packet[0] = input
	ret, err := c.Programs["p"].Run(&ebpf.RunOptions{Data: packet})
	if err != nil {
		t.Fatal(err)
	}
	value, err := c.Maps[MapName].LookupBytes(uint32(0))
	if err != nil {
		t.Fatal(err)
	}
	return ret, probes, value
}

// firstByte loads the first byte of the packet to w0.
func firstByte() asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadAbs(0, asm.Byte),
	}
}

func TestProbesTellWhichBlocksAndWaysRan(t *testing.T) {
	// if (byte == 1) return 11; if (byte == 2) return 22; return 33;
	insns := append(firstByte(),
		asm.JNE.Imm(asm.R0, 1, ""),
		asm.Mov.Imm(asm.R0, 11),
		asm.Return(),
		asm.JNE.Imm(asm.R0, 2, ""),
		asm.Mov.Imm(asm.R0, 22),
		asm.Ja.Label(""),
		asm.Mov.Imm(asm.R0, 33),
		asm.Return(),
	)
	// As in an object file: distances and no labels.
	for i, distance := range map[int]int16{2: 2, 5: 2, 7: 1} {
		insns[i] = insns[i].WithReference("")
		insns[i].Offset = distance
	}
	// Blocks: 0 the start, 3 first return, 4 second test, 7 its return, 8 the
	// third value, 9 the last return. Jumps: 1 and 2, 5 and 6.
	for _, c := range []struct {
		input byte
		want  uint32
		ran   []int
	}{
		{1, 11, []int{0, 1, 3}},
		{2, 22, []int{0, 2, 4, 5, 7, 9}},
		{3, 33, []int{0, 2, 4, 6, 8, 9}},
	} {
		ret, probes, value := run(t, insns, c.input)
		if ret != c.want {
			t.Errorf("a packet of %d returns %d, want %d", c.input, ret, c.want)
		}
		var ran []int
		for i := range probes {
			if value[i] != 0 {
				ran = append(ran, i)
			}
		}
		if !slices.Equal(ran, c.ran) {
			t.Errorf("a packet of %d runs %v, want %v: %+v", c.input, ran, c.ran, probes)
		}
	}
}

func TestNoRegisterOfTheProgramIsLost(t *testing.T) {
	// All ten registers hold a value across a jump, and the stack is in use.
	insns := firstByte()
	insns = append(insns, asm.Mov.Imm(asm.R1, 1000), asm.StoreMem(asm.RFP, -16, asm.R1, asm.DWord))
	for r := asm.R1; r <= asm.R9; r++ {
		insns = append(insns, asm.Mov.Imm(r, 1<<int32(r)))
	}
	insns = append(insns, asm.JEq.Imm(asm.R0, 7, ""))
	insns[len(insns)-1] = insns[len(insns)-1].WithReference("")
	insns[len(insns)-1].Offset = 1
	insns = append(insns, asm.Add.Imm(asm.R1, 1))
	for r := asm.R1; r <= asm.R9; r++ {
		insns = append(insns, asm.Add.Reg(asm.R0, r))
	}
	insns = append(insns,
		asm.LoadMem(asm.R1, asm.RFP, -16, asm.DWord),
		asm.Add.Reg(asm.R0, asm.R1),
		asm.Return(),
	)
	for input, want := range map[byte]uint32{7: 7 + 1022 + 1000, 8: 8 + 1 + 1022 + 1000} {
		if ret, _, _ := run(t, insns, input); ret != want {
			t.Errorf("a packet of %d returns %d, want %d", input, ret, want)
		}
	}
}

func TestFunctionsKeepTheirProbesToThemselves(t *testing.T) {
	packetByte := &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed}
	function := func(name string, params ...btf.FuncParam) *btf.Func {
		return &btf.Func{Name: name, Type: &btf.FuncProto{Return: packetByte, Params: params}, Linkage: btf.StaticFunc}
	}
	insns := append(firstByte(),
		asm.Mov.Reg(asm.R1, asm.R0),
		asm.Call.Label("twice"),
		asm.Return(),
	)
	insns[0] = btf.WithFuncMetadata(insns[0].WithSymbol("p"), function("p", btf.FuncParam{Name: "skb", Type: &btf.Pointer{Target: &btf.Void{}}}))
	twice := asm.Instructions{
		asm.Mov.Reg(asm.R0, asm.R1),
		asm.JGT.Imm(asm.R1, 100, ""),
		asm.Add.Reg(asm.R0, asm.R1),
		asm.Return(),
	}
	twice[0] = btf.WithFuncMetadata(twice[0].WithSymbol("twice"), function("twice", btf.FuncParam{Name: "x", Type: packetByte}))
	twice[1] = twice[1].WithReference("")
	twice[1].Offset = 1
	insns = append(insns, twice...)
	for i := range insns {
		insns[i] = insns[i].WithSource(asm.Comment("a line"))
	}
	for input, want := range map[byte]uint32{21: 42, 200: 200} {
		if ret, _, _ := run(t, insns, input); ret != want {
			t.Errorf("a packet of %d returns %d, want %d", input, ret, want)
		}
	}
}

func TestReportCountsALineOnceForAllItsCopies(t *testing.T) {
	a, b, c := Line{"f.h", 1, "a"}, Line{"f.h", 2, "if (b)"}, Line{"g.h", 1, "c"}
	probes := []Probe{
		{"p", []Line{a, b}, 0}, {"p", []Line{b}, -1}, {"p", []Line{b}, 1}, {"p", []Line{c}, 0},
		{"q", []Line{a}, 0}, {"q", []Line{b}, -1}, {"q", []Line{b}, 1},
		{"none of ours", []Line{{"h.h", 1, "d"}}, 0},
	}
	keep := func(program string) bool { return program != "none of ours" }
	r := NewReport(probes, []byte{1, 1, 0, 0, 0, 0, 0, 0}, keep)
	if r.Lines["f.h"] != (Count{2, 2}) || r.Lines["g.h"] != (Count{0, 1}) || len(r.Lines) != 2 {
		t.Errorf("lines are %v", r.Lines)
	}
	if r.Conditions["f.h"] != (Count{0, 1}) || r.Blocks["p"] != (Count{1, 2}) || r.Ways["p"] != (Count{1, 2}) {
		t.Errorf("conditions are %v, blocks %v, ways %v", r.Conditions, r.Blocks, r.Ways)
	}
	if !slices.Equal(r.Missed, []Line{c}) || !slices.Equal(r.Halves, []Line{b}) {
		t.Errorf("missed %v, halves %v", r.Missed, r.Halves)
	}
	r = NewReport(probes, []byte{1, 1, 0, 1, 0, 0, 1, 0}, keep)
	if len(r.Missed) != 0 || len(r.Halves) != 0 || r.Conditions["f.h"] != (Count{1, 1}) {
		t.Errorf("the other copy's way does not count: %+v", r)
	}
	for _, want := range []string{"f.h", "2/2 (100.0 %)", "p "} {
		if !strings.Contains(r.String(), want) {
			t.Errorf("the report has no %q:\n%s", want, r)
		}
	}
}

func TestJumpsToNowhereAreRefused(t *testing.T) {
	jump := asm.Ja.Label("")
	jump.Offset = 5
	spec := &ebpf.CollectionSpec{Maps: map[string]*ebpf.MapSpec{}, Programs: map[string]*ebpf.ProgramSpec{
		"p": {Name: "p", Type: ebpf.SchedCLS, Instructions: asm.Instructions{jump, asm.Return()}, ByteOrder: binary.NativeEndian},
	}}
	if _, err := Instrument(spec); err == nil {
		t.Error("a jump past the end is accepted")
	}
}
