package container

import (
	"errors"
	"io/fs"
	"log/slog"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
)

// This file holds the image side of the API as plain data. What acts is elsewhere: pull.go and
// load.go bring an image into a Store, store.go keeps it, unpack.go writes its layers.

// The sentinels of images. Test for them with [errors.Is]; what is returned is an [*Error] that
// names the image, the layer and, where there is one, the remedy.
var (
	// ErrImageNotFound is returned when the registry, the archive or (with PullNever) the store has no
	// such image. It wraps fs.ErrNotExist.
	ErrImageNotFound error = &sentinel{"image not found", fs.ErrNotExist}

	// ErrDigestMismatch is returned when the bytes received are not those that the manifest, the
	// image's configuration or the reference promise. Nothing of them is kept.
	ErrDigestMismatch = errors.New("digest mismatch")

	// ErrInvalidImage is returned for a document or an archive that cannot be an image, or that
	// must not be believed: ambiguous manifests, names that lead out of the root.
	ErrInvalidImage = errors.New("invalid image")

	// ErrNoPlatform is returned when the image is not offered for the platform asked for; the
	// message lists those that are.
	ErrNoPlatform = errors.New("no image for this platform")

	// ErrLimit is returned when an image is larger than PullOptions.Limits allow.
	ErrLimit = errors.New("image exceeds a limit")

	// ErrUnauthorized is returned when the registry wants credentials, or other ones, or when it
	// asks to send them to a host that does not belong to it.
	ErrUnauthorized error = &sentinel{"not authorized by the registry", fs.ErrPermission}
)

// Image is an image in a Store, ready to run: its layers are unpacked and verified.
// It is data and may be copied; it stays valid as long as its layers stay in the store.
type Image struct {
	// Reference is the name by which the image was opened: "debian:13", or "oci:DIR:TAG".
	Reference string
	// Digest is the manifest's digest, "sha256:...". Empty for a plain directory. For a
	// docker-archive, which has no manifest, it is that of the manifest made for it.
	Digest string
	// Platform is "os/architecture" or "os/architecture/variant". Empty for a plain directory.
	Platform string
	// Size is the number of bytes of the layers' regular files, unpacked.
	Size int64
	// Config says how the image wants to be run.
	Config ImageConfig

	layers []string // directories in overlayfs format, the lowest first
	dir    string   // a plain directory: of "dir:DIR"
}

// ImageConfig is the "config" part of an image's configuration, as in the OCI image specification.
// The JSON names are the specification's.
type ImageConfig struct {
	// Entrypoint and Cmd together are the command line; arguments given by the user replace Cmd.
	Entrypoint []string `json:",omitempty"`
	Cmd        []string `json:",omitempty"`
	// Env is the environment, "KEY=value".
	Env []string `json:",omitempty"`
	// User is as Process.User: "name", "1000", "1000:1000".
	User string `json:",omitempty"`
	// WorkingDir is as Process.Cwd.
	WorkingDir string `json:",omitempty"`
	// StopSignal is for ParseSignal and Config.StopSignal. If empty, SIGTERM.
	StopSignal string `json:",omitempty"`
	// What follows is stored, and used by nothing in this package.
	Labels       map[string]string   `json:",omitempty"`
	ExposedPorts map[string]struct{} `json:",omitempty"`
	Volumes      map[string]struct{} `json:",omitempty"`
	Healthcheck  *Healthcheck        `json:",omitempty"`
}

// Healthcheck is Docker's extension of the image configuration. The package stores it and does
// not run it.
type Healthcheck struct {
	// Test is {"NONE"}, {"CMD", args...} or {"CMD-SHELL", command}.
	Test          []string      `json:",omitempty"`
	Interval      time.Duration `json:",omitempty"`
	Timeout       time.Duration `json:",omitempty"`
	StartPeriod   time.Duration `json:",omitempty"`
	StartInterval time.Duration `json:",omitempty"`
	Retries       int           `json:",omitempty"`
}

// Root returns the image as the root of a container: its layers, copy-on-write; or, for a
// plain directory, the directory itself, read-write.
func (img *Image) Root() Root {
	if img.dir != "" {
		return Root{Dir: img.dir, Access: ReadWrite}
	}
	return Root{Layers: append([]string(nil), img.layers...), Access: CopyOnWrite}
}

// Process returns a process that runs the image as Docker does: the image's Entrypoint followed by
// args or, if there are none, by the image's Cmd; with the image's Env, User and WorkingDir.
// Args of the result is empty if the image does not say what to run and args is empty.
func (img *Image) Process(args ...string) *Process {
	c := &img.Config
	if len(args) == 0 {
		args = c.Cmd
	}
	p := &Process{
		Args: append(append([]string(nil), c.Entrypoint...), args...),
		Env:  append([]string(nil), c.Env...),
		User: c.User,
		Cwd:  c.WorkingDir,
	}
	return p
}

// PullPolicy says when Pull asks the registry.
type PullPolicy string

// The policies.
const (
	// PullMissing asks the registry if the reference is not in the store. The zero value.
	PullMissing PullPolicy = ""
	// PullAlways asks the registry what the reference stands for now; layers that are in the
	// store are not fetched again.
	PullAlways PullPolicy = "always"
	// PullNever does not use the network.
	PullNever PullPolicy = "never"
)

// PullOptions are the options of Pull, Load and Open. The zero value, and a nil pointer, are an
// anonymous pull of the host's platform.
type PullOptions struct {
	// Policy says when the registry is asked. Load ignores it.
	Policy PullPolicy

	// Platform is "os/architecture[/variant]", for instance "linux/arm64/v8". If empty, the host's,
	// in the best variant that this processor can run.
	Platform string

	// Keychain gives the credentials. Nil means anonymous; authn.DefaultKeychain reads the files of
	// docker and podman. Credentials go to the registry's own host, to its parent domain and
	// subdomains, and to the hosts named in AuthHosts; to no other.
	Keychain authn.Keychain

	// AuthHosts are further token servers that may be given the credentials ("auth.example.com").
	AuthHosts []string

	// PlainHTTP allows http instead of https. Without it, http is used for loopback addresses only.
	PlainHTTP bool

	// Progress is told how far each layer is. Calls come one at a time, from other goroutines,
	// and hold up the transfer while they last. May be nil.
	Progress func(PullProgress)

	// Logger is told of retries and of what was left out of a layer. Nil is silent.
	Logger *slog.Logger

	// Limits bound what an image may cost.
	Limits ImageLimits

	// Jobs is how many layers are fetched and unpacked at the same time. Zero means the number of
	// CPUs, at most 4.
	Jobs int
}

// ImageLimits bound what one image may cost. Zero fields have the default named with them.
type ImageLimits struct {
	// Bytes is the size of one layer when unpacked, in bytes. Default: 64 GiB.
	Bytes int64
	// Entries is the number of entries in one layer. Default: 4 million. It also bounds the memory for what has to be
	// remembered to the end of a layer, names and attributes of directories and of files with other owners: 16 MiB, and
	// 64 bytes for each entry that is allowed.
	Entries int64
	// Ratio is how many times larger than its compressed form a layer may be when unpacked, counted
	// beyond the first 64 MiB. Default: no bound.
	Ratio int64
	// Window is the largest window of a zstd frame, in bytes. Default: 128 MiB, as zstd(1).
	Window int64
	// Layers is the number of layers. Default: 500, the most that overlayfs takes.
	Layers int
}

// PullProgress is an event of one layer.
type PullProgress struct {
	// Reference is the image's name, Layer the layer's diff id.
	Reference, Layer string
	// Phase is what is being done.
	Phase PullPhase
	// Bytes of Total (compressed) bytes have been received.
	Bytes, Total int64
	// Index of Count tells the layer's place, from 0, the lowest layer first.
	Index, Count int
}

// PullPhase is a stage in the life of a layer in a pull.
type PullPhase string

// The phases, in order. PhaseExists and PhaseDone are final.
const (
	PhaseExists   PullPhase = "exists"   // in the store already
	PhaseWaiting  PullPhase = "waiting"  // another process or pull is fetching it
	PhaseDownload PullPhase = "download" // being received and unpacked, in one stream
	PhaseDone     PullPhase = "done"     // verified and committed
)

// StoreOptions are the options of OpenStore. The zero value, and a nil pointer, are good.
type StoreOptions struct {
	// Ownership says who owns the unpacked files. It is fixed when the store is made; opening a
	// store that was made with another one is an error. If empty: that of the store; for a new
	// one, OwnershipRoot as root, OwnershipSubIDs for a user who has subordinate ids, else
	// OwnershipSingle.
	Ownership Ownership

	// Sync writes images to the disk before a pull returns. Without it an image is
	// valid until the host is shut down uncleanly, and is pulled again thereafter: what a crash may
	// have left half-written is never used.
	Sync bool
}

// Ownership says who owns the files of a store's layers.
type Ownership string

// The kinds of ownership.
const (
	// OwnershipRoot: the image's ids are the host's. Needs root.
	OwnershipRoot Ownership = "root"
	// OwnershipSubIDs: the image's 0 is the user, its other ids are the user's subordinate ids
	// from /etc/subuid and /etc/subgid, in their order.
	OwnershipSubIDs Ownership = "subuid"
	// OwnershipSingle: all files are the user's. The image's ids are written to the layer's
	// meta.json only.
	OwnershipSingle Ownership = "single"
)
