// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/zipline-cni/zipline/datapath"
)

// trafficJSON is an amount of packets.
type trafficJSON struct {
	Packets uint64 `json:"packets" doc:"number of packets; a GSO packet counts once"`
	Bytes   uint64 `json:"bytes" doc:"their length in bytes, as the kernel counts it at this place"`
}

func trafficOf(t datapath.Traffic) trafficJSON { return trafficJSON{t.Packets, t.Bytes} }

func (t trafficJSON) text() string { return plural(t.Packets, "packet") + ", " + amount(t.Bytes) }

// number is for cells; JSON has the number itself.
func number[T int | uint32 | uint64](n T) string { return strconv.FormatInt(int64(n), 10) }

// amount writes bytes for people, in powers of 1,000 as networks count.
func amount(bytes uint64) string {
	if bytes < 1000 {
		return fmt.Sprintf("%d B", bytes)
	}
	value, unit := float64(bytes), 0
	for value >= 999.95 && unit < len(units) {
		value /= 1000
		unit++
	}
	return fmt.Sprintf("%.1f %cB", value, units[unit-1])
}

const units = "kMGTPE"

// memory writes bytes of memory for people, in powers of 1,024, as one word.
func memory(bytes uint64) string {
	switch {
	case bytes >= 1<<20:
		return fmt.Sprintf("%.1fMiB", float64(bytes)/(1<<20))
	case bytes >= 1<<10:
		return fmt.Sprintf("%.1fKiB", float64(bytes)/(1<<10))
	}
	return fmt.Sprintf("%dB", bytes)
}

// timestamp is how all output writes a time: RFC 3339, UTC, to the second.
func timestamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// short cuts a container id to what people compare, as other tools do.
func short(id string) string { return id[:min(len(id), 12)] }

// texts turns values into a list that is never null.
func texts[T fmt.Stringer](values []T) []string {
	list := make([]string, 0, len(values))
	for _, v := range values {
		list = append(list, v.String())
	}
	return list
}

// errorText is the text of an error, "" for none.
func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// plural writes a number with its noun, whose plural is regular.
func plural(n uint64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	if strings.HasSuffix(noun, "s") {
		noun += "e"
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
