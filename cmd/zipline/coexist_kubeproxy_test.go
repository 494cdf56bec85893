// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/zipline-cni/zipline/internal/reference"
	"github.com/zipline-cni/zipline/internal/testrig"
)

// TestKubeProxy runs the real kube-proxy on the node, in each of its modes.
func TestKubeProxy(t *testing.T) {
	program := reference.KubeProxy(t)
	for _, v := range tiers {
		for _, mode := range []string{"iptables", "nftables"} {
			t.Run(v.name+" "+mode, func(t *testing.T) {
				t.Parallel()
				w := newServiceWorld(t, v)
				api := w.serveCluster(t)
				w.runKubeProxy(t, program, mode, api)
				w.check(t)
				w.checkScaleDown(t, api)
			})
		}
	}
}

const (
	slicesPath = "/apis/discovery.k8s.io/v1/endpointslices"
	nodeName   = "node"
)

// serveCluster serves the API of a cluster of one node, with one service.
func (w *serviceWorld) serveCluster(t *testing.T) *kubeAPI {
	t.Helper()
	var ports, slicePorts []object
	for _, protocol := range []string{"TCP", "UDP"} {
		name := strings.ToLower(protocol)
		ports = append(ports, object{"name": name, "protocol": protocol, "port": servicePort, "targetPort": backendPort, "nodePort": nodePort})
		slicePorts = append(slicePorts, object{"name": name, "protocol": protocol, "port": backendPort})
	}
	var addresses, clusterIPs, families6 []string
	var endpointSlices []object
	for _, f := range families {
		addresses, clusterIPs, families6 = append(addresses, f.node.String()), append(clusterIPs, f.service.String()), append(families6, f.name)
		endpointSlices = append(endpointSlices, object{
			"metadata": object{
				"name": "web-" + f.name, "namespace": "default",
				"labels": object{"kubernetes.io/service-name": "web"},
			},
			"addressType": f.name, "ports": slicePorts, "endpoints": w.endpoints(f, w.backends),
		})
	}
	var nodeAddresses []object
	for _, a := range addresses {
		nodeAddresses = append(nodeAddresses, object{"type": "InternalIP", "address": a})
	}
	return serveKubeAPI(t, &w.Node.Namespace, map[string]*kubeList{
		"/api/v1/nodes": {"v1", "Node", []object{{
			"metadata": object{"name": nodeName}, "spec": object{}, "status": object{"addresses": nodeAddresses},
		}}},
		"/api/v1/services": {"v1", "Service", []object{{
			"metadata": object{"name": "web", "namespace": "default"},
			"spec": object{
				"type": "NodePort", "clusterIP": clusterIPs[0], "clusterIPs": clusterIPs, "ipFamilies": families6,
				"ipFamilyPolicy": "RequireDualStack", "ports": ports, "sessionAffinity": "None",
				"internalTrafficPolicy": "Cluster", "externalTrafficPolicy": "Cluster",
			},
		}}},
		slicesPath: {"discovery.k8s.io/v1", "EndpointSlice", endpointSlices},
		"/apis/networking.k8s.io/v1/servicecidrs": {"networking.k8s.io/v1", "ServiceCIDR", []object{{
			"metadata": object{"name": "kubernetes"}, "spec": object{"cidrs": []string{"10.96.0.0/16", "fd00:96::/112"}},
		}}},
	})
}

func (w *serviceWorld) endpoints(f family, backends []*pod) []object {
	var endpoints []object
	for _, p := range backends {
		endpoints = append(endpoints, object{
			"addresses": []string{f.addr(p).String()}, "nodeName": nodeName,
			"conditions": object{"ready": true, "serving": true, "terminating": false},
		})
	}
	return endpoints
}

// runKubeProxy starts kube-proxy in the node and waits for its rules.
func (w *serviceWorld) runKubeProxy(t *testing.T, program, mode string, api *kubeAPI) {
	t.Helper()
	dir := t.TempDir()
	files := map[string]string{
		"kubeconfig": fmt.Sprintf(`{"apiVersion": "v1", "kind": "Config", "current-context": "c",
	"clusters": [{"name": "c", "cluster": {"server": "http://%s"}}], "contexts": [{"name": "c", "context": {"cluster": "c"}}]}`, api.addr),
		"config": fmt.Sprintf(`{"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration", "mode": %q,
	"bindAddress": "0.0.0.0", "hostnameOverride": %q, "clusterCIDR": "10.77.0.0/16,fd00:77::/64", "detectLocalMode": "ClusterCIDR",
	"clientConnection": {"kubeconfig": "%s/kubeconfig", "contentType": "application/json", "acceptContentTypes": "application/json"},
	"conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"}}`, mode, nodeName, dir),
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	output, ended := &lockedBuffer{}, make(chan error, 1)
	go func() {
		ended <- w.Node.Do(func() error {
			cmd := exec.CommandContext(ctx, program, "--config="+filepath.Join(dir, "config"))
			cmd.Stdout, cmd.Stderr = output, output
			cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
			return cmd.Run()
		})
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		if t.Failed() {
			t.Logf("kube-proxy said:\n%s", output)
		}
	})
	deadline := time.Now().Add(30 * time.Second)
	for !w.hasRules(t, w.backends) {
		if time.Now().After(deadline) {
			t.Fatal("kube-proxy writes no rules")
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// hasRules says whether some rules mention each of these backends and no other.
func (w *serviceWorld) hasRules(t *testing.T, backends []*pod) bool {
	t.Helper()
	rules := w.Node.MustRun(t, "sh", "-c", `nft list table ip kube-proxy; nft list table ip6 kube-proxy
		iptables-save; ip6tables-save; true`)
	for _, f := range families {
		for _, p := range w.backends {
			if strings.Contains(rules, addrPort(f.addr(p), backendPort)) != slices.Contains(backends, p) {
				return false
			}
		}
	}
	return true
}

// checkScaleDown takes a backend out of the service while clients talk to it over
// UDP: kube-proxy deletes the entries, and the next packets reach the other one.
func (w *serviceWorld) checkScaleDown(t *testing.T, api *kubeAPI) {
	t.Helper()
	for _, f := range families {
		var servers []*testrig.Server
		for _, p := range w.backends {
			servers = append(servers, p.ServeUDP(t, netip.AddrPortFrom(f.addr(p), backendPort)))
		}
		talks := make(map[string]*datagrams)
		for name, from := range map[string]*testrig.Namespace{"a container": &w.client.Namespace, "another network": &w.other.Namespace} {
			dst := netip.AddrPortFrom(f.service, servicePort)
			talks[name] = talkTo(t, from, dst, servers[0])
		}
		api.update(slicesPath, "web-"+f.name, func(slice object) { slice["endpoints"] = w.endpoints(f, w.backends[1:]) })
		for name, talk := range talks {
			talk.awaitSwitch(t, f.name+", "+name, servers)
		}
		for _, s := range servers {
			s.Close()
		}
	}
	deadline := time.Now().Add(10 * time.Second)
	for !w.hasRules(t, w.backends[1:]) {
		if time.Now().After(deadline) {
			t.Fatal("kube-proxy keeps the rules of a backend that is gone")
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// lockedBuffer is a buffer for two goroutines.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements [io.Writer].
func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// String implements [fmt.Stringer].
func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
