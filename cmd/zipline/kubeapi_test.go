// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"encoding/json"
	"net"
	"net/http"
	"path"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/zipline-cni/zipline/internal/testrig"
)

// object is a Kubernetes object as its JSON.
type object = map[string]any

// kubeAPI is as much of a Kubernetes API server as kube-proxy asks for: lists
// and watches of a few objects.
type kubeAPI struct {
	addr net.Addr

	mu       sync.Mutex
	lists    map[string]*kubeList // by path
	watchers []*kubeWatcher
	version  int
}

// kubeList are the objects of one kind.
type kubeList struct {
	apiVersion, kind string
	items            []object
}

type kubeWatcher struct {
	path   string
	events chan object
}

// serveKubeAPI serves lists on a free port of the namespace's 127.0.0.1.
func serveKubeAPI(t *testing.T, ns *testrig.Namespace, lists map[string]*kubeList) *kubeAPI {
	t.Helper()
	var listener net.Listener
	err := ns.Do(func() (err error) {
		listener, err = net.Listen("tcp", "127.0.0.1:0")
		return err
	})
	if err != nil {
		t.Fatalf("serve API: %v", err)
	}
	api := &kubeAPI{addr: listener.Addr(), lists: lists, version: 1}
	for p, list := range lists {
		for _, item := range list.items {
			item["apiVersion"], item["kind"] = list.apiVersion, list.kind
			item["metadata"].(object)["uid"] = path.Base(p) + "-" + item["metadata"].(object)["name"].(string)
		}
	}
	server := &http.Server{Handler: api}
	t.Cleanup(func() { _ = server.Close() })
	go func() { _ = server.Serve(listener) }()
	return api
}

// ServeHTTP implements [http.Handler].
func (api *kubeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	api.mu.Lock()
	list, collection := api.lists[r.URL.Path]
	parent := api.lists[path.Dir(r.URL.Path)]
	api.mu.Unlock()
	switch query := r.URL.Query(); {
	case r.Method == http.MethodPost: // an event
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write([]byte(`{"kind":"Event","apiVersion":"events.k8s.io/v1","metadata":{"name":"event"}}`))
	case collection && query.Get("watch") != "":
		api.watch(w, r, list)
	case collection:
		api.mu.Lock()
		defer api.mu.Unlock()
		api.write(w, object{
			"apiVersion": list.apiVersion, "kind": list.kind + "List", "items": list.items,
			"metadata": object{"resourceVersion": strconv.Itoa(api.version)},
		})
	default:
		if parent != nil {
			api.mu.Lock()
			defer api.mu.Unlock()
			for _, item := range parent.items {
				if item["metadata"].(object)["name"] == path.Base(r.URL.Path) {
					api.write(w, item)
					return
				}
			}
		}
		w.WriteHeader(http.StatusNotFound)
		api.write(w, object{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": http.StatusNotFound})
	}
}

// watch sends events of a list until the client goes: what happens between two
// watches of a client is not told to it. One that wants the present objects first
// gets them, and the bookmark after.
func (api *kubeAPI) watch(w http.ResponseWriter, r *http.Request, list *kubeList) {
	watcher := &kubeWatcher{path: r.URL.Path, events: make(chan object, 100)}
	api.mu.Lock()
	if r.URL.Query().Get("sendInitialEvents") == "true" {
		for _, item := range list.items {
			api.write(w, object{"type": "ADDED", "object": item})
		}
		api.write(w, object{"type": "BOOKMARK", "object": object{
			"apiVersion": list.apiVersion, "kind": list.kind,
			"metadata": object{"resourceVersion": strconv.Itoa(api.version), "annotations": object{"k8s.io/initial-events-end": "true"}},
		}})
	}
	api.watchers = append(api.watchers, watcher)
	api.mu.Unlock()
	flush := w.(http.Flusher).Flush
	flush()
	for {
		select {
		case event := <-watcher.events:
			api.mu.Lock()
			api.write(w, event)
			api.mu.Unlock()
			flush()
		case <-r.Context().Done():
			api.mu.Lock()
			api.watchers = slices.DeleteFunc(api.watchers, func(other *kubeWatcher) bool { return other == watcher })
			api.mu.Unlock()
			return
		}
	}
}

// update changes an object and tells the watchers.
func (api *kubeAPI) update(p, name string, change func(object)) {
	api.mu.Lock()
	defer api.mu.Unlock()
	api.version++
	for _, item := range api.lists[p].items {
		if item["metadata"].(object)["name"] != name {
			continue
		}
		change(item)
		item["metadata"].(object)["resourceVersion"] = strconv.Itoa(api.version)
		for _, watcher := range api.watchers {
			if watcher.path == p {
				watcher.events <- object{"type": "MODIFIED", "object": item}
			}
		}
	}
}

// write sends an object; the caller holds the lock.
func (api *kubeAPI) write(w http.ResponseWriter, o object) {
	_ = json.NewEncoder(w).Encode(o) // the client may be gone
}
