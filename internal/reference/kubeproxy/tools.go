// SPDX-License-Identifier: Apache-2.0

//go:build tools

// Package kubeproxy is a module of its own that pins what kube-proxy is built
// from: the go command installs nothing from a module whose go.mod has replace
// directives, as that of k8s.io/kubernetes has for its staging modules. Here they
// are replaced by their releases.
package kubeproxy

import _ "k8s.io/kubernetes/cmd/kube-proxy"
