//go:build !linux

package container

import (
	"context"
	"io"
	"io/fs"
	"net"
	"net/netip"
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

type seccompThread struct{}

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

// Dial returns ErrUnsupported.
func (c *Container) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return nil, unsupported("dial", "")
}

// Listen returns ErrUnsupported.
func (c *Container) Listen(network, address string) (net.Listener, error) {
	return nil, unsupported("listen", "")
}

// ListenPacket returns ErrUnsupported.
func (c *Container) ListenPacket(network, address string) (net.PacketConn, error) {
	return nil, unsupported("listen", "")
}

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

// InterfaceStats returns ErrUnsupported.
func (c *Container) InterfaceStats() ([]InterfaceStats, error) { return nil, unsupported("stats", "") }

// Pid returns 0.
func (c *Container) Pid() int { return 0 }

// Status returns ErrUnsupported.
func (c *Container) Status() (Status, error) { return "", unsupported("state", "") }

// State returns ErrUnsupported.
func (c *Container) State() (*ContainerState, error) { return nil, unsupported("state", "") }

func (c *Container) annotate(*ContainerState) error { return unsupported("save state", "") }

// CanLimitDevices returns ErrUnsupported.
func CanLimitDevices() error { return unsupported("cgroup", "") }

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

// Valid returns ErrUnsupported.
func (c *SeccompCall) Valid() error { return unsupported("seccomp call", "") }

// ReadAt returns ErrUnsupported.
func (c *SeccompCall) ReadAt(p []byte, addr int64) (int, error) {
	return 0, unsupported("read memory", "")
}

// ReadString returns ErrUnsupported.
func (c *SeccompCall) ReadString(addr uint64, max int) (string, error) {
	return "", unsupported("read memory", "")
}

// WriteAt returns ErrUnsupported.
func (c *SeccompCall) WriteAt(p []byte, addr int64) (int, error) {
	return 0, unsupported("write memory", "")
}

// File returns ErrUnsupported.
func (c *SeccompCall) File(fd int) (*os.File, error) { return nil, unsupported("take descriptor", "") }

// AddFile returns ErrUnsupported.
func (c *SeccompCall) AddFile(f *os.File, fd int, closeOnExec bool) (int, error) {
	return 0, unsupported("add descriptor", "")
}

// Reconcile returns ErrUnsupported.
func Reconcile(ctx context.Context, stateDir string) error { return unsupported("reconcile", "") }

// A PortForwarder needs Linux.
type PortForwarder struct{ _ struct{} }

// NewPortForwarder returns ErrUnsupported.
func NewPortForwarder(stateDir, bridge string, addresses ...netip.Addr) (*PortForwarder, error) {
	return nil, unsupported("forward ports", "")
}

// AddMapping returns ErrUnsupported.
func (f *PortForwarder) AddMapping(m PortMapping) (PortMapping, error) {
	return m, unsupported("forward port", "")
}

// RemoveMapping returns ErrUnsupported.
func (f *PortForwarder) RemoveMapping(m PortMapping) error { return unsupported("remove port", "") }

// Cleanup does nothing.
func (f *PortForwarder) Cleanup() error { return nil }

// EnsureBridge returns ErrUnsupported.
func EnsureBridge(ctx context.Context, cfg BridgeConfig) (*Bridge, error) {
	return nil, unsupported("bridge", cfg.Name)
}

// RemoveBridge returns ErrUnsupported.
func RemoveBridge(ctx context.Context, stateDir, name string) error {
	return unsupported("remove bridge", name)
}

// Bridges returns ErrUnsupported.
func Bridges(stateDir string) ([]*Bridge, error) { return nil, unsupported("bridges", stateDir) }

// EnsureForwardingEnabled returns ErrUnsupported.
func EnsureForwardingEnabled(ctx context.Context) error { return unsupported("forwarding", "") }

// A Network is the connection of a process's network namespace.
type Network struct{}

// SetupContainerNetwork returns ErrUnsupported.
func SetupContainerNetwork(ctx context.Context, pid int, cfg NetworkConfig) (*Network, error) {
	return nil, unsupported("set up network", "")
}

// State returns nothing.
func (n *Network) State() NetworkState { return NetworkState{} }

// Cleanup returns ErrUnsupported.
func (n *Network) Cleanup() error { return unsupported("set up network", "") }
