// SPDX-License-Identifier: Apache-2.0

// Numbers with their units, as a reader sees them.

package report

import (
	"fmt"
	"math"
	"strings"

	"github.com/zipline-cni/zipline/bench"
)

// unit is what one of a workload's units is called, with the number of them that
// CPU time is given for.
func unit(w bench.Workload) (name string, per float64) {
	switch {
	case w.Bulk():
		return "MB", 1e6
	case w.Datagrams():
		return "datagram", 1
	case w == bench.TCPCRR:
		return "connection", 1
	default:
		return "transaction", 1
	}
}

// rateUnit returns the unit that rates of a workload are plotted in, and how many
// units per second make one.
func rateUnit(w bench.Workload) (name string, scale float64) {
	if w.Bulk() {
		return "Gbit/s", 1e9 / 8
	}
	return "thousand/s", 1e3
}

// rateText returns a rate, such as "64.9 k/s" or "12.3 Gbit/s".
func rateText(w bench.Workload, perSecond float64) string {
	if w.Bulk() {
		return scaled(perSecond*8, "bit/s")
	}
	return scaled(perSecond, "/s")
}

// secondsText returns a time, such as "15.4 µs".
func secondsText(seconds float64) string {
	switch {
	case seconds == 0:
		return "-"
	case seconds < 1e-3:
		return digits(seconds*1e6) + " µs"
	case seconds < 1:
		return digits(seconds*1e3) + " ms"
	default:
		return digits(seconds) + " s"
	}
}

// scaled returns a number with a prefix of the SI and a unit.
func scaled(value float64, unit string) string {
	for _, p := range []struct {
		prefix string
		factor float64
	}{{"G", 1e9}, {"M", 1e6}, {"k", 1e3}} {
		if value >= p.factor*0.9995 { // what would be shown as 1000
			return digits(value/p.factor) + " " + p.prefix + unit
		}
	}
	return strings.TrimSpace(digits(value) + " " + unit)
}

// digits returns a number with three digits that count.
func digits(value float64) string {
	switch magnitude := math.Abs(value); {
	case magnitude >= 99.95:
		return fmt.Sprintf("%.0f", value)
	case magnitude >= 9.995:
		return fmt.Sprintf("%.1f", value)
	default:
		return fmt.Sprintf("%.2f", value)
	}
}

// percent returns a share, or "-" for none.
func percent(share float64) string {
	switch {
	case share == 0:
		return "-"
	case share < 0.001:
		return "< 0.1 %"
	default:
		return fmt.Sprintf("%.1f %%", share*100)
	}
}

// inTable makes text fit for a cell of a Markdown table.
func inTable(text string) string {
	return strings.NewReplacer("\r", " ", "\n", " ", "|", `\|`, "<", "&lt;", ">", "&gt;", "`", "'").Replace(text)
}
