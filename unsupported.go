//go:build !linux

package container

import (
	"context"
	"io"
	"io/fs"
	"os"
	"runtime"
	"syscall"
	"time"
)

// This file is the package where there are no containers: it compiles, descriptions can be made and
// read, and whatever would act returns an error that wraps ErrUnsupported.

func unsupported(op, id string) error {
	return &Error{Op: op, ID: id, Err: ErrUnsupported, Remedy: runtime.GOOS + " has no containers; run the program on Linux"}
}

// A Container needs Linux.
type Container struct{ _ struct{} }

type liveProcess struct{}

type terminal struct{}

// New returns ErrUnsupported.
func New(stateDir, id string, cfg Config) (*Container, error) { return nil, unsupported("new", id) }

// Load returns ErrUnsupported.
func Load(stateDir, id string) (*Container, error) { return nil, unsupported("load", id) }

// List returns ErrUnsupported.
func List(stateDir string) ([]*Container, error) { return nil, unsupported("list", "") }

// ID returns nothing.
func (c *Container) ID() string { return "" }

// Config returns nothing.
func (c *Container) Config() Config { return Config{} }

// Create returns ErrUnsupported.
func (c *Container) Create(ctx context.Context, p *Process) error { return unsupported("create", "") }

// Start returns ErrUnsupported.
func (c *Container) Start(ctx context.Context) error { return unsupported("start", "") }

// Run returns ErrUnsupported.
func (c *Container) Run(ctx context.Context, p *Process) error { return unsupported("run", "") }

// Exec returns ErrUnsupported.
func (c *Container) Exec(ctx context.Context, p *Process) error { return unsupported("exec", "") }

// ExecWithNsenter returns ErrUnsupported.
func (c *Container) ExecWithNsenter(ctx context.Context, p *Process) error {
	return unsupported("exec", "")
}

// ExecNoUserNs returns ErrUnsupported.
func (c *Container) ExecNoUserNs(ctx context.Context, p *Process) error {
	return unsupported("exec", "")
}

// CopyTo returns ErrUnsupported.
func (c *Container) CopyTo(ctx context.Context, dst string, archive io.Reader) error {
	return unsupported("copy to", "")
}

// CopyFrom returns ErrUnsupported.
func (c *Container) CopyFrom(ctx context.Context, src string, archive io.Writer) error {
	return unsupported("copy from", "")
}

// RootFS needs Linux.
type RootFS struct{ fs.ReadLinkFS }

// FS returns ErrUnsupported.
func (c *Container) FS() (*RootFS, error) { return nil, unsupported("files", "") }

// Close does nothing.
func (r *RootFS) Close() error { return nil }

// NamespacePaths returns ErrUnsupported.
func (c *Container) NamespacePaths() (map[NamespaceKind]string, error) {
	return nil, unsupported("namespaces", "")
}

// GetNamespacePaths returns nothing.
func GetNamespacePaths(pid int) map[NamespaceKind]string { return nil }

// JoinNetworkNamespace returns ErrUnsupported.
func JoinNetworkNamespace(pid int, f func() error) error { return unsupported("join namespace", "") }

// Wait returns ErrUnsupported.
func (c *Container) Wait() error { return unsupported("wait", "") }

// Signal returns ErrUnsupported.
func (c *Container) Signal(sig syscall.Signal) error { return unsupported("signal", "") }

// SignalAll returns ErrUnsupported.
func (c *Container) SignalAll(sig syscall.Signal) error { return unsupported("signal all", "") }

// Processes returns ErrUnsupported.
func (c *Container) Processes() ([]int, error) { return nil, unsupported("processes", "") }

// Stop returns ErrUnsupported.
func (c *Container) Stop(ctx context.Context) error { return unsupported("stop", "") }

// Destroy returns ErrUnsupported.
func (c *Container) Destroy() error { return unsupported("destroy", "") }

// Pid returns 0.
func (c *Container) Pid() int { return 0 }

// Status returns ErrUnsupported.
func (c *Container) Status() (Status, error) { return "", unsupported("state", "") }

// State returns ErrUnsupported.
func (c *Container) State() (*ContainerState, error) { return nil, unsupported("state", "") }

func (c *Container) annotate(*ContainerState) error { return unsupported("save state", "") }

// Explain returns ErrUnsupported: the list consists of Linux's system calls.
func Explain(cfg Config, p *Process) (string, error) { return "", unsupported("explain", "") }

// ExplainOrder returns nothing.
func ExplainOrder() string { return "" }

// IsTerminal returns false: no container can be attached to it.
func IsTerminal(f *os.File) bool { return false }

// Pid returns 0.
func (p *Process) Pid() int { return 0 }

// Wait returns ErrUnsupported.
func (p *Process) Wait() error { return unsupported("wait", "") }

// Signal returns ErrUnsupported.
func (p *Process) Signal(sig syscall.Signal) error { return unsupported("signal", "") }

// Resize returns ErrUnsupported.
func (p *Process) Resize(size ConsoleSize) error { return unsupported("resize", "") }

// Attach returns ErrUnsupported.
func (p *Process) Attach(ctx context.Context, in io.Reader, out io.Writer) error {
	return unsupported("attach", "")
}

// SystemTime returns 0.
func (p *Process) SystemTime() time.Duration { return 0 }

// UserTime returns 0.
func (p *Process) UserTime() time.Duration { return 0 }
