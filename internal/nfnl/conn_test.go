// SPDX-License-Identifier: Apache-2.0

package nfnl

import (
	"errors"
	"runtime"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/testutil"
)

func newConn(tb testing.TB) *Conn {
	tb.Helper()
	testutil.RequireRoot(tb)
	// The thread dies with the test's goroutine, and the namespace with it.
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		tb.Fatal(err)
	}
	c, err := Open()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := c.Close(); err != nil {
			tb.Error(err)
		}
	})
	return c
}

func request(kind int, family byte, data ...byte) netlink.Message {
	return netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind),
			Flags: netlink.Request,
		},
		Data: append([]byte{family, 0, 0, 0}, data...),
	}
}

var (
	getGeneration   = request(unix.NFT_MSG_GETGEN, 0)
	getMissingTable = request(unix.NFT_MSG_GETTABLE, unix.NFPROTO_INET, 6, 0, unix.NFTA_TABLE_NAME, 0, 'x', 0, 0, 0)
	listTables      = request(unix.NFT_MSG_GETTABLE, 0)
)

func TestAnswersCarryTheNumberOfTheirRequest(t *testing.T) {
	c := newConn(t)
	first, err := c.Send(getGeneration, getMissingTable, getGeneration)
	if err != nil {
		t.Fatal(err)
	}
	for i, wantErr := range []error{nil, unix.ENOENT, nil} {
		m, err := c.Receive(first)
		if !errors.Is(err, wantErr) || err != nil && wantErr == nil {
			t.Fatalf("answer %d: error %v, want %v", i, err, wantErr)
		}
		if m.Header.Sequence != first+uint32(i) {
			t.Errorf("answer %d: sequence %d, want %d", i, m.Header.Sequence, first+uint32(i))
		}
		var kernel *Error
		if errors.As(err, &kernel) && kernel.Sequence != first+uint32(i) {
			t.Errorf("answer %d: error is about %d", i, kernel.Sequence)
		}
	}
}

func TestLeftoversOfAnEarlierExchangeAreSkipped(t *testing.T) {
	c := newConn(t)
	if _, err := c.Send(getGeneration, getMissingTable); err != nil {
		t.Fatal(err)
	}
	first, err := c.Send(getGeneration)
	if err != nil {
		t.Fatal(err)
	}
	m, err := c.Receive(first)
	if err != nil || m.Header.Sequence != first {
		t.Errorf("received %+v, %v, want the answer to %d", m, err, first)
	}
}

func TestDumpOfNothingEnds(t *testing.T) {
	c := newConn(t)
	for range 2 {
		err := c.Dump(listTables, func(m netlink.Message) error {
			t.Errorf("message %+v in an empty namespace", m)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestSendMakesRoomForALargeDatagram(t *testing.T) {
	c := newConn(t)
	many := make([]netlink.Message, 20000)
	for i := range many {
		many[i] = getGeneration
		many[i].Header.Flags = 0 // no request: the kernel only skips it
	}
	many = append(many, getGeneration)
	first, err := c.Send(many...)
	if err != nil {
		t.Fatal(err)
	}
	m, err := c.Receive(first)
	if want := first + uint32(len(many)) - 1; err != nil || m.Header.Sequence != want {
		t.Errorf("received sequence %d, %v, want %d", m.Header.Sequence, err, want)
	}
}
