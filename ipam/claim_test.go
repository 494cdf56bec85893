// SPDX-License-Identifier: Apache-2.0

package ipam

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// claimEnv tells the test binary to run claimLoop with this package: "<claims
// directory> <number> <rounds>". The network configuration is on stdin.
const claimEnv = "ZIPLINE_IPAM_TEST_CLAIMER"

func runClaimer(stdin, claims string, number, rounds int) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d %d", claimEnv, claims, number, rounds))
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func claimer() error {
	var claims string
	var number, rounds int
	if _, err := fmt.Sscan(os.Getenv(claimEnv), &claims, &number, &rounds); err != nil {
		return err
	}
	var stdin bytes.Buffer
	if _, err := stdin.ReadFrom(os.Stdin); err != nil {
		return err
	}
	p, err := NewPool(stdin.Bytes(), "")
	if err != nil {
		return err
	}
	return claimLoop(claims, number, rounds, func(o Owner) ([]string, error) {
		result, err := p.Allocate(o)
		if errors.Is(err, ErrExhausted) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		return strings.Fields(addresses(result)), nil
	}, func(o Owner) error {
		_, err := p.Release(o)
		return err
	})
}

// claimLoop adds and deletes its own few owners at random, and marks what it
// holds. In the end it holds nothing. add returns nothing if nothing was free.
func claimLoop(claims string, number, rounds int, add func(Owner) ([]string, error), del func(Owner) error) error {
	rng := rand.New(rand.NewPCG(uint64(number), 7))
	held := map[Owner][]string{}
	release := func(o Owner) error {
		for _, addr := range held[o] {
			if err := os.Remove(filepath.Join(claims, addr)); err != nil {
				return err
			}
		}
		delete(held, o)
		return del(o)
	}
	for range rounds {
		o := owner(100*number + rng.IntN(4))
		if held[o] != nil || rng.IntN(4) == 0 {
			if err := release(o); err != nil {
				return err
			}
			continue
		}
		addrs, err := add(o)
		if err != nil {
			return err
		}
		for _, addr := range addrs {
			mark, err := os.OpenFile(filepath.Join(claims, addr), os.O_CREATE|os.O_EXCL, 0o600)
			if err != nil {
				return fmt.Errorf("%s was leased twice: %w", addr, err)
			}
			if err := mark.Close(); err != nil {
				return err
			}
		}
		held[o] = addrs
	}
	for i := range 4 {
		if err := release(owner(100*number + i)); err != nil {
			return err
		}
	}
	return nil
}

// errgroup runs functions side by side and collects their errors.
type errgroup struct {
	wg   sync.WaitGroup
	mu   sync.Mutex
	errs []error
}

func (g *errgroup) run(f func() error) {
	g.wg.Go(func() {
		if err := f(); err != nil {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.errs = append(g.errs, err)
		}
	})
}

func (g *errgroup) wait() []error {
	g.wg.Wait()
	return g.errs
}
