// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// childVariable makes the test binary a process that opens the node, attaches
// to the device with this index, and prints the maps.
const childVariable = "ZIPLINE_TEST_OPEN"

func TestMain(m *testing.M) {
	index, isChild := os.LookupEnv(childVariable)
	if !isChild {
		os.Exit(m.Run())
	}
	if err := child(index); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func child(text string) error {
	runtime.LockOSThread()
	index, err := strconv.Atoi(text)
	if err != nil {
		return err
	}
	node, err := Open(index)
	if err != nil {
		return err
	}
	fmt.Print(node.mapIDs)
	return node.Close()
}

// command returns the child, to be started by the calling thread, whose
// namespaces it gets.
func command(index int) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childVariable+"="+strconv.Itoa(index))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

func TestProcessesThatOpenAtOnceMakeOneSet(t *testing.T) {
	enterNode(t)
	const processes = 16
	var indexes []int
	for i := range processes {
		indexes = append(indexes, addDevice(t, i))
	}
	output := make([]bytes.Buffer, processes)
	var commands []*exec.Cmd
	for i, index := range indexes {
		if i == processes/2 {
			enterMounts(t) // the other half has no pins to see
		}
		cmd := command(index)
		cmd.Stdout, cmd.Stderr = &output[i], &output[i]
		must(t, cmd.Start())
		commands = append(commands, cmd)
	}
	for i, cmd := range commands {
		if err := cmd.Wait(); err != nil {
			t.Errorf("process %d: %v: %s", i, err, &output[i])
		}
	}
	node := mustFind(t, 0)
	for i, index := range indexes {
		if have, want := output[i].String(), fmt.Sprint(node.mapIDs); have != want {
			t.Errorf("process %d opened maps %s, want %s", i, have, want)
		}
		must(t, node.Attached(index))
	}
}

// Killed at any moment, a process leaves what the next one can go on with: the
// maps of the devices if there is one that has them.
func TestAKilledProcessLeavesNothingInTheWay(t *testing.T) {
	enterNode(t)
	keeper, index := addDevice(t, 1), addDevice(t, 2)
	var killed int
	for round := range 40 {
		node := mustOpen(t, Site{}, keeper)
		switch round % 4 {
		case 0:
			outdate(t, node)
		case 1:
			must(t, os.Remove(recordPath(node.dir)))
		case 2:
			must(t, os.RemoveAll(pinRoot("/sys/fs/bpf", node.name)))
		}
		cmd := command(index)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		must(t, cmd.Start())
		time.Sleep(time.Duration(rand.IntN(120)) * time.Millisecond)
		must(t, cmd.Process.Kill())
		if err := cmd.Wait(); err != nil {
			killed++
			if stderr.Len() > 0 {
				t.Errorf("round %d: %s", round, &stderr)
			}
		}
		again := mustOpen(t, Site{}, index)
		if !again.sameMaps(node.set) {
			t.Fatalf("round %d: maps %v, want %v", round, again.mapIDs, node.mapIDs)
		}
		must(t, again.Attached(index))
		must(t, again.Attached(keeper))
		if leftovers, _ := filepath.Glob(pinRoot("/sys/fs/bpf", node.name) + "/*-next"); round%4 != 3 && len(leftovers) > 0 {
			t.Errorf("round %d: %v is left", round, leftovers)
		}
	}
	if killed < 5 {
		t.Errorf("only %d of 40 processes were killed before their end", killed)
	}
}

// The verifier's log is for those who ask.
func TestALoadErrorIsShortUnlessAskedFor(t *testing.T) {
	enterNode(t)
	err := rejected(t)
	brief, whole := fmt.Sprintf("%v", err), fmt.Sprintf("%+v", err)
	if strings.Count(brief, "\n") > 0 || !strings.HasPrefix(whole, brief) || len(whole) <= len(brief)+40 {
		t.Errorf("brief: %q\nwhole: %q", brief, whole)
	}
}
