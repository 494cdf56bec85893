// SPDX-License-Identifier: Apache-2.0

package reference

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/zipline-cni/zipline/internal/testutil"
)

// Version is the release of the reference plugins that everything is compared
// with.
const Version = "v1.9.1"

// prebuilt is the environment variable that names a directory with all of the
// executables, where there is no Go to build them with.
const prebuilt = "ZIPLINE_TEST_BIN"

const module = "github.com/containernetworking/plugins/plugins/"

// programs are the import paths below module of the plugins that are built.
var programs = []string{
	"main/bridge", "main/ptp",
	"ipam/host-local", "ipam/static",
	"meta/bandwidth", "meta/firewall", "meta/portmap", "meta/tuning",
}

// Plugins returns the directory of the reference plugins' executables, and
// builds them if this user has not done so before. It needs the go command, and
// the first time the module proxy or a filled module cache.
func Plugins(tb testing.TB) string {
	tb.Helper()
	if dir := os.Getenv(prebuilt); dir != "" {
		return dir
	}
	dir, err := plugins()
	if err != nil {
		tb.Fatal(err)
	}
	return dir
}

// BuildZipline builds cmd/zipline of the repository that the test belongs to,
// with the flags of a release, and returns the executable's path. It is built
// once per process; the file is replaced atomically, so that other test
// processes may execute it meanwhile.
func BuildZipline(tb testing.TB) string {
	tb.Helper()
	if dir := os.Getenv(prebuilt); dir != "" {
		return filepath.Join(dir, "zipline")
	}
	ziplineOnce.Do(func() { ziplinePath, errZipline = buildZipline(testutil.RepoRoot(tb)) })
	if errZipline != nil {
		tb.Fatal(errZipline)
	}
	return ziplinePath
}

var (
	ziplineOnce sync.Once
	ziplinePath string
	errZipline  error

	plugins = sync.OnceValues(buildPlugins)
)

func buildPlugins() (string, error) {
	dir, err := CacheDir()
	if err != nil {
		return "", err
	}
	// Another Go release may build other executables: they get another directory.
	final := filepath.Join(dir, "plugins-"+Version+"-"+runtime.Version()+"-"+runtime.GOARCH)
	unlock, err := lock(final + ".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(final); err == nil {
		return final, nil
	}
	staging, err := os.MkdirTemp(dir, "plugins-")
	if err != nil {
		return "", fmt.Errorf("build reference plugins: %w", err)
	}
	defer func() { _ = os.RemoveAll(staging) }()
	args := append([]string{"install"}, releaseFlags...)
	for _, program := range programs {
		args = append(args, module+program+"@"+Version)
	}
	if err := goCommand(dir, args, "GOBIN="+staging); err != nil {
		return "", fmt.Errorf("build reference plugins: %w", err)
	}
	for _, program := range programs {
		if _, err := os.Stat(filepath.Join(staging, path.Base(program))); err != nil {
			return "", fmt.Errorf("build reference plugins: %w", err)
		}
	}
	if err := os.Chmod(staging, 0o755); err != nil {
		return "", fmt.Errorf("build reference plugins: %w", err)
	}
	// The directory appears whole or not at all.
	if err := os.Rename(staging, final); err != nil {
		return "", fmt.Errorf("build reference plugins: %w", err)
	}
	return final, nil
}

func buildZipline(root string) (string, error) {
	dir, err := CacheDir()
	if err != nil {
		return "", err
	}
	// One directory per checkout, because the executable is named as its type.
	dir = filepath.Join(dir, "zipline-"+digest([]byte(root)))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("build zipline: %w", err)
	}
	unlock, err := lock(dir + ".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	final := filepath.Join(dir, "zipline")
	if err := goBuild(root, final, "./cmd/zipline"); err != nil {
		return "", fmt.Errorf("build zipline: %w", err)
	}
	return final, nil
}

// releaseFlags are the build flags of a release.
var releaseFlags = []string{"-trimpath", "-ldflags", "-s -w"}

// goBuild builds an executable in the module of dir. A running executable can't be
// written to, but its name can be given away, so the new one appears whole.
func goBuild(dir, final string, args ...string) error {
	staging := final + ".new"
	args = append(append([]string{"build", "-o", staging}, releaseFlags...), args...)
	if err := goCommand(dir, args); err != nil {
		return err
	}
	return os.Rename(staging, final)
}

// digest names what a file of the cache was made from.
func digest(of []byte) string {
	sum := sha256.Sum256(of)
	return fmt.Sprintf("%x", sum[:6])
}

// goCommand runs the go command in dir. Cgo is off, as in a release: the
// executables must not depend on the machine's C library.
func goCommand(dir string, args []string, env ...string) error {
	cmd := exec.Command("go", args...)
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS="), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", args[0], err, out)
	}
	return nil
}

// CacheDir returns this project's directory in the user's cache and creates it.
func CacheDir() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find cache directory: %w", err)
	}
	dir := filepath.Join(base, "zipline-test")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make cache directory: %w", err)
	}
	return dir, nil
}

// lock takes an exclusive lock on a file of this name; the kernel drops it when
// the process dies. The returned function releases it.
func lock(name string) (func(), error) {
	file, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	return func() { _ = file.Close() }, nil
}
