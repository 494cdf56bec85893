// SPDX-License-Identifier: Apache-2.0

package reference

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/zipline-cni/zipline/internal/testutil"
)

// KubeProxy builds kube-proxy from the modules that internal/reference/kubeproxy
// pins, and returns the executable's path. The first time this takes minutes and
// the module proxy; [testing.Short] skips the test then.
func KubeProxy(tb testing.TB) string {
	tb.Helper()
	kubeProxyOnce.Do(func() { kubeProxyPath, errKubeProxy = buildKubeProxy(testutil.RepoRoot(tb), testing.Short()) })
	if errKubeProxy != nil {
		tb.Fatal(errKubeProxy)
	}
	if kubeProxyPath == "" {
		tb.Skip("kube-proxy is not built yet, and that takes minutes")
	}
	return kubeProxyPath
}

var (
	kubeProxyOnce sync.Once
	kubeProxyPath string
	errKubeProxy  error
)

// buildKubeProxy returns no path if it was not built before and may not be now.
func buildKubeProxy(root string, short bool) (string, error) {
	source := filepath.Join(root, "internal/reference/kubeproxy")
	pinned, err := os.ReadFile(filepath.Join(source, "go.sum"))
	if err != nil {
		return "", fmt.Errorf("build kube-proxy: %w", err)
	}
	dir, err := CacheDir()
	if err != nil {
		return "", err
	}
	final := filepath.Join(dir, fmt.Sprintf("kube-proxy-%s-%s-%s", digest(pinned), runtime.Version(), runtime.GOARCH))
	unlock, err := lock(final + ".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(final); err == nil {
		return final, nil
	}
	if short {
		return "", nil
	}
	if err := goBuild(source, final, "-mod=readonly", "k8s.io/kubernetes/cmd/kube-proxy"); err != nil {
		return "", fmt.Errorf("build kube-proxy: %w", err)
	}
	return final, nil
}
