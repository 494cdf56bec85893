// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/zipline-cni/zipline/datapath/capture/filter"
)

// ErrDown says that the device went down or away.
var ErrDown = errors.New("the device went down or away")

// maxSnaplen is more than any packet has, BIG TCP included.
const maxSnaplen = 262144

// Options say what to record.
type Options struct {
	// Namespace has the device with this Index.
	Namespace *os.File
	Index     int
	// Name and Description of the interface in the file.
	Name, Description string
	// Application is what the file says of its maker.
	Application string
	// Filter is an expression of the filter package; empty: all packets.
	Filter string
	// Snaplen is how much of each packet to keep; 0: all of it.
	Snaplen uint32
	// Count ends after so many packets; 0: never.
	Count uint64
	// Ready is called when no packet will be missed any more. Optional.
	Ready func()
}

// Summary says what was recorded.
type Summary struct {
	// Packets were written, Dropped had no room while the reader was busy.
	Packets, Dropped uint64
}

// Check returns why the options cannot be met: what is wrong with the filter.
func (o *Options) Check() error {
	_, err := filter.Compile(o.Filter, o.snaplen())
	return err
}

func (o *Options) snaplen() uint32 {
	if o.Snaplen == 0 || o.Snaplen > maxSnaplen {
		return maxSnaplen
	}
	return o.Snaplen
}

// Run records until the context ends or there are as many packets as asked for.
// Each time nothing more waits, all of it has been written to w. When the device
// goes down or away the file is finished too, and the error is [ErrDown].
func Run(ctx context.Context, w io.Writer, o Options) (sum Summary, err error) {
	program, err := filter.Compile(o.Filter, o.snaplen())
	if err != nil {
		return sum, err
	}
	s, err := open(o.Namespace, o.Index, program, o.snaplen())
	if err != nil {
		return sum, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	file, err := pcapgo.NewNgWriterInterface(w, pcapgo.NgInterface{
		Name: o.Name, Description: o.Description, Filter: o.Filter, OS: runtime.GOOS,
		LinkType: layers.LinkTypeEthernet, SnapLength: o.snaplen(), TimestampResolution: 9,
	}, pcapgo.NgWriterOptions{SectionInfo: pcapgo.NgSectionInfo{
		Hardware: runtime.GOARCH, OS: runtime.GOOS, Application: o.Application,
	}})
	if err == nil {
		err = file.Flush()
	}
	if err != nil {
		return sum, fmt.Errorf("write file: %w", err)
	}
	begin := time.Now()
	if o.Ready != nil {
		o.Ready()
	}
	if err := copyPackets(ctx, file, s, o.Count, &sum); errors.Is(err, ErrDown) {
		return sum, errors.Join(err, finish(file, s, begin, &sum))
	} else if err != nil {
		return sum, err
	}
	return sum, finish(file, s, begin, &sum)
}

// copyPackets writes packets. After the context's end it still reads those that
// came before.
func copyPackets(ctx context.Context, file *pcapgo.NgWriter, s *socket, limit uint64, sum *Summary) error {
	waiting := false
	var end time.Time
	var down error
	for limit == 0 || sum.Packets < limit {
		if ctx.Err() != nil && end.IsZero() {
			end = time.Now()
		}
		p, err := s.receive(waiting && end.IsZero())
		switch {
		case errors.Is(err, ErrDown):
			end, down = time.Now(), err // told once, before what still waits
			continue
		case err != nil:
			return err
		case !end.IsZero() && (p == nil || p.at.After(end)):
			return down
		case p == nil && !waiting:
			if err := file.Flush(); err != nil {
				return fmt.Errorf("write file: %w", err)
			}
		}
		if waiting = p == nil; waiting {
			continue
		}
		if err := write(file, p); err != nil {
			return err
		}
		sum.Packets++
	}
	return nil
}

func write(file *pcapgo.NgWriter, p *packet) error {
	flags := pcapgo.NgEpbFlags{Direction: pcapgo.NgEpbFlagDirectionInbound}
	if p.outgoing {
		flags.Direction = pcapgo.NgEpbFlagDirectionOutbound
	}
	info := gopacket.CaptureInfo{Timestamp: p.at, CaptureLength: len(p.data), Length: p.length}
	if err := file.WritePacketWithOptions(info, p.data, pcapgo.NgPacketOptions{Flags: &flags}); err != nil {
		return fmt.Errorf("write packet: %w", err)
	}
	return nil
}

// finish writes the statistics.
func finish(file *pcapgo.NgWriter, s *socket, begin time.Time, sum *Summary) error {
	passed, dropped, err := s.statistics()
	if err != nil {
		return err
	}
	sum.Dropped = dropped
	now := time.Now()
	err = file.WriteInterfaceStats(0, pcapgo.NgInterfaceStatistics{
		LastUpdate: now, StartTime: begin, EndTime: now, PacketsReceived: passed, PacketsDropped: dropped,
	})
	if err == nil {
		err = file.Flush()
	}
	if err != nil {
		return fmt.Errorf("write file: %w", err)
	}
	return nil
}
