# SPDX-License-Identifier: Apache-2.0

GO      ?= go
CLANG   ?= clang-14
PREFIX  ?= /opt/cni
SBINDIR ?= /usr/local/sbin
RELEASE ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.release=$(RELEASE)
GOBUILD := CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)'

.DEFAULT_GOAL := build
.PHONY: build demo test test-kernels fuzz coverage bench bench-quick generate generate-check docs lint install clean help setup

build: ## build the plugin and the tools to bin/
	$(GOBUILD) -o bin/ ./cmd/...

setup: ## install what the tests and the demo need (Debian packages; root)
	.ci/setup

demo: setup ## attach containers in a private node and show the traffic
	$(GO) run ./internal/demo

test: setup lint generate-check ## run every test (root)
	$(GO) test -p 1 -timeout 50m ./...
	$(MAKE) --no-print-directory bench-quick

test-kernels: ## run what depends on the kernel on KERNELS (default 5.10 to 7), emulated
	.ci/setup kernels
	$(GO) run ./internal/kernels $(KERNELS)

fuzz: ## run each fuzz target for FUZZTIME (default 20s)
	.ci/fuzz $(or $(FUZZTIME),20s)

coverage: ## list the lines of the eBPF programs' C that their tests do not run (root)
	$(GO) test -count=1 -v -run '^TestCoverage$$' ./bpf

bench: build ## compare with other plugins and the limits, half an hour, results in OUT (root)
	bin/zipline-bench run -out $(or $(OUT),bench/results/$(shell date +%F)-$(shell uname -r))

bench-quick: build ## show that the whole comparison works, less than two minutes, results in OUT (root)
	bin/zipline-bench run -quick -out $(or $(OUT),bin/bench-quick)

generate: ## rebuild the eBPF objects with the pinned clang
	BPF2GO_CC=$(CLANG) $(GO) generate ./bpf

# Only a laptop without the pinned clang may leave this out; CI may not.
generate-check: ## prove that the committed eBPF objects are what the sources give
	@if [ -z "$$CI" ] && ! command -v $(CLANG) >/dev/null; then echo "no $(CLANG): the eBPF objects are not compared"; exit 0; fi; \
	$(MAKE) --no-print-directory generate && \
	test -z "$$(git status --porcelain -- bpf)" || { git status --short -- bpf; git diff -- bpf | head -50; echo "run 'make generate' with $(CLANG) and commit bpf/"; exit 1; }

docs: ## write docs/cli.md from the commands of ziplinectl
	$(GO) generate ./cmd/ziplinectl

lint: ## check format, vet and the module files
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); echo "run gofmt"; exit 1; }
	$(GO) vet ./...
	$(GO) mod tidy -diff

install: build ## install the plugin to $(PREFIX)/bin and ziplinectl to $(SBINDIR)
	install -D -m 0755 bin/zipline $(DESTDIR)$(PREFIX)/bin/zipline
	install -D -m 0755 bin/ziplinectl $(DESTDIR)$(SBINDIR)/ziplinectl

clean: ## remove what make built
	rm -rf bin

help: ## list the targets
	@awk 'BEGIN {FS = ":.*##"} /^[a-z-]+:.*##/ {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
