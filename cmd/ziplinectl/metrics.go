// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"

	"github.com/zipline-cni/zipline/datapath/metrics"
)

func (a *app) metricsCommand() *cobra.Command {
	var listen, textfile string
	var dirs []string
	c := &cobra.Command{
		Use:   "metrics",
		Short: "Write Prometheus metrics, serve them, or leave them to node_exporter",
		Long: `metrics writes what the node's programs have counted and what there is of maps,
endpoints, leases and uplinks, in Prometheus's text format. Everything is read
from the kernel and the lease files at that moment, so nothing needs to run
between two scrapes: a timer that writes a file for node_exporter's textfile
collector does as well as a server. A Grafana dashboard is docs/grafana-dashboard.json.

How long ADD and DEL took is not among the metrics: nobody records it.
--output is without effect here.`,
		Example: `  ziplinectl metrics
  ziplinectl metrics --listen 127.0.0.1:9742
  ziplinectl metrics --textfile /var/lib/prometheus/node-exporter/zipline.prom`,
		Annotations: map[string]string{needs: needsRoot},
		RunE: func(c *cobra.Command, _ []string) error {
			switch {
			case listen != "" && textfile != "":
				return usageError{errors.New("--listen and --textfile: want one of them")}
			case listen != "":
				return a.serveMetrics(c.Context(), listen, dirs)
			case textfile != "":
				return writeTextfile(textfile, dirs)
			}
			sample, err := readMetrics(dirs)
			if err != nil {
				return err
			}
			return sample.WriteText(a.out)
		},
	}
	f := c.Flags()
	f.StringVar(&listen, "listen", "", "serve /metrics on this `address`, as 127.0.0.1:9742, until interrupted")
	f.StringVar(&textfile, "textfile", "", "replace this `file` (*.prom) at once")
	bindDataDirs(c, &dirs)
	return c
}

func readMetrics(dirs []string) (*metrics.Sample, error) {
	list, err := readLeases(dirs, nil)
	if err != nil {
		return nil, err
	}
	leases := make([]metrics.Lease, 0, len(list))
	for _, l := range list {
		addr, err := netip.ParseAddr(l.Address)
		if err != nil {
			return nil, fmt.Errorf("read lease: %w", err)
		}
		leases = append(leases, metrics.Lease{Network: l.Network, State: l.State, Address: addr})
	}
	return metrics.Read(release, leases)
}

// writeTextfile replaces the file by rename, as node_exporter may read it at any
// moment, and lets it be read by everybody, as node_exporter is not root.
func writeTextfile(path string, dirs []string) (err error) {
	if !strings.HasSuffix(path, ".prom") {
		return usageError{fmt.Errorf("textfile %q: want a name that ends in .prom, which node_exporter reads", path)}
	}
	sample, err := readMetrics(dirs)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	if err := sample.WriteText(&text); err != nil {
		return err
	}
	// The name of the file in the making is none that node_exporter reads.
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".")
	if err != nil {
		return fmt.Errorf("write metrics: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(file.Name()) // best effort
		}
	}()
	_, err = file.Write(text.Bytes())
	if err = errors.Join(err, file.Chmod(0o644), file.Close()); err != nil {
		return fmt.Errorf("write metrics: %w", err)
	}
	if err := os.Rename(file.Name(), path); err != nil {
		return fmt.Errorf("write metrics: %w", err)
	}
	return nil
}

func (a *app) serveMetrics(ctx context.Context, address string, dirs []string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("serve metrics: %w", err)
	}
	var reading sync.Mutex // whoever asks often costs the node one reading at a time
	gather := func() (*prometheus.Registry, error) {
		reading.Lock()
		defer reading.Unlock()
		sample, err := readMetrics(dirs)
		if err != nil {
			return nil, err
		}
		return sample.Registry()
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		registry, err := gather()
		if err != nil {
			a.say("%v", err) // the scraper is told as well
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(w, r)
	})
	const patience = 10 * time.Second // with a client that neither asks nor reads
	server := &http.Server{Handler: mux, ReadTimeout: patience, WriteTimeout: 3 * patience, IdleTimeout: 12 * patience}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	a.say("serving http://%s/metrics", listener.Addr())
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve metrics: %w", err)
	}
	return nil
}
