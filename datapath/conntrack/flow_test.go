// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestFlows(t *testing.T) {
	enterNetns(t)
	insert(t, "-s 10.1.0.2 -d 198.51.100.1 -r 198.51.100.1 -q 192.0.2.1 -p tcp --sport 4000 --dport 80"+
		" --reply-port-src 80 --reply-port-dst 4001 --state ESTABLISHED -u SEEN_REPLY,ASSURED --mark 48")
	insert(t, "-s fd00:1::2 -d 2001:db8::1 -r 2001:db8::1 -q fd00:1::2 -p udp --sport 4000 --dport 53 --reply-port-src 53 --reply-port-dst 4000 --zone 7")
	insert(t, "-s 10.1.0.2 -d 192.0.2.1 -r 192.0.2.1 -q 10.1.0.2 -p icmp --icmp-type 8 --icmp-code 0 --icmp-id 7")
	var got []string
	err := Flows(func(f Flow) {
		if f.ID == 0 || f.Timeout > 600*time.Second || f.Timeout < 590*time.Second || f.Accounted {
			t.Errorf("flow %+v", f)
		}
		got = append(got, fmt.Sprint(f.Protocol, f.Original, f.Reply, f.State, f.Mark, f.Zone, f.Helper, f.Status&(HasReply|Assured)))
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(got)
	want := []string{
		"1 {10.1.0.2:0 192.0.2.1:0} {192.0.2.1:0 10.1.0.2:0} 0 0  0",
		"17 {[fd00:1::2]:4000 [2001:db8::1]:53} {[2001:db8::1]:53 [fd00:1::2]:4000} 0 7  0",
		"6 {10.1.0.2:4000 198.51.100.1:80} {198.51.100.1:80 192.0.2.1:4001}ESTABLISHED48 0  6",
	}
	normal := func(lines []string) string { return strings.ReplaceAll(strings.Join(lines, "\n"), " ", "") }
	if normal(got) != normal(want) {
		t.Errorf("got\n%s\nwant\n%s\n(listed:\n%s)", strings.Join(got, "\n"), strings.Join(want, "\n"), listing(t))
	}
}

func TestStatusNames(t *testing.T) {
	if got := fmt.Sprint((HasReply | Assured | Offload | 1<<7).Names()); got != "[seen-reply assured offload]" {
		t.Errorf("names %s", got)
	}
	if got := Status(0).Names(); got == nil || len(got) != 0 {
		t.Errorf("names %#v of nothing; want an empty list", got)
	}
}
