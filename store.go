//go:build linux

package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// This file holds the Store: images on disk. There is no daemon and no database; what is in the
// directories is the truth, and any number of processes may use them at the same time.
//
//	VERSION                 "1"; another one is refused
//	config.json             who owns the files, and the id maps
//	lock                    flock: shared by users, exclusive for collecting garbage
//	blobs/sha256/<hex>      manifests, indexes and configurations, verified
//	layers/<diff id>/       a layer, made by one rename:
//	    fs/                 the tree, with overlayfs's whiteouts and opaque directories
//	    meta.json           what is known of it
//	images/<manifest>.json  an image and its layers; written after them
//	refs/<reference>        a name and its manifest; written last
//	ingest/<random>/        a layer being unpacked; its file owner is locked by whoever does
//	ingest/.tmp-<random>    a small file being written
//	locks/<diff id>         flock: a layer being fetched
//	trash/<random>          to be deleted
//
// Layers are named by their diff id, the digest of the plain tar: it has to be computed anyway, the
// same content is stored once however it was compressed, and layers do not wait for each other.

const storeVersion = "1\n"

// Store keeps images, unpacked, in a directory. It is safe for concurrent use, by goroutines and by processes of
// the same user.
type Store struct {
	dir    string // absolute, without symbolic links
	config storeConfig
	sync   bool

	userns struct { // the user namespace in which files get other owners
		sync.Mutex
		f *os.File
	}
	background sync.WaitGroup
	promoted   sync.Map // manifests for which promote has been called
}

// OpenStore opens the store in a directory and makes it if it is not there. An empty dir is
// /var/lib/container/store for root, and $XDG_DATA_HOME/container/store, or
// ~/.local/share/container/store, for others. opt may be nil.
//
// The directory must belong to the caller. It should not be on a network file system: it needs flock(2), hard links
// and extended attributes. ErrUnsupported is returned if opt asks for an Ownership that this user
// cannot have.
func OpenStore(dir string, opt *StoreOptions) (*Store, error) {
	s, err := openStore(dir, opt)
	if err != nil {
		return nil, &Error{Op: "open store", Path: dir, Err: err}
	}
	return s, nil
}

func openStore(dir string, opt *StoreOptions) (*Store, error) {
	if opt == nil {
		opt = &StoreOptions{}
	}
	if dir == "" {
		var err error
		if dir, err = defaultStoreDir(); err != nil {
			return nil, err
		}
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return nil, err
	}
	if int(st.Uid) != os.Geteuid() {
		return nil, fmt.Errorf("the directory belongs to user %d, not to user %d: %w", st.Uid, os.Geteuid(), fs.ErrPermission)
	}
	s := &Store{dir: dir, sync: opt.Sync}
	for _, sub := range []string{"blobs/sha256", "layers", "images", "refs", "ingest", "locks", "trash"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, err
		}
		at("store: directory")
	}
	if err := s.checkVersion(); err != nil {
		return nil, err
	}
	if err := s.loadConfig(opt.Ownership); err != nil {
		return nil, err
	}
	s.cleanIngest(context.Background())
	return s, nil
}

// Close waits for work in the background. The store's images stay valid.
func (s *Store) Close() error {
	s.background.Wait()
	s.userns.Lock()
	defer s.userns.Unlock()
	if s.userns.f != nil {
		s.userns.f.Close()
		s.userns.f = nil
	}
	return nil
}

// Dir is the directory of the store.
func (s *Store) Dir() string { return s.dir }

// IDMappings returns the Config.UidMappings and Config.GidMappings of a container that runs an image
// of this store, so that files have their owners in it. Both are empty where the default maps do.
func (s *Store) IDMappings() (uid, gid []IDMap) {
	return slices.Clone(s.config.UIDMap), slices.Clone(s.config.GIDMap)
}

func defaultStoreDir() (string, error) {
	if os.Geteuid() == 0 && !inUserNamespace() {
		return "/var/lib/container/store", nil
	}
	if data := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(data) {
		return filepath.Join(data, "container/store"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("no directory was given, and neither XDG_DATA_HOME nor HOME is set: %w", err)
	}
	return filepath.Join(home, ".local/share/container/store"), nil
}

func (s *Store) checkVersion() error {
	b, err := os.ReadFile(filepath.Join(s.dir, "VERSION"))
	if errors.Is(err, fs.ErrNotExist) {
		return s.writeFile("VERSION", []byte(storeVersion))
	}
	if err != nil {
		return err
	}
	if string(b) != storeVersion {
		return fmt.Errorf("%w: the store has version %q, this program knows %q", ErrUnsupported,
			strings.TrimSpace(string(b)), strings.TrimSpace(storeVersion))
	}
	return nil
}

// loadConfig reads config.json, or settles what it says.
func (s *Store) loadConfig(want Ownership) error {
	err := s.readJSON("config.json", &s.config)
	if errors.Is(err, fs.ErrNotExist) {
		if s.config, err = newStoreConfig(want); err != nil {
			return err
		}
		err = s.writeJSON("config.json", &s.config)
	}
	if err != nil {
		return err
	}
	if want != "" && want != s.config.Ownership {
		return fmt.Errorf("%w: the store was made with ownership %q, not %q; use another directory", ErrUnsupported, s.config.Ownership, want)
	}
	return nil
}

func newStoreConfig(want Ownership) (storeConfig, error) {
	root := os.Geteuid() == 0 && !inUserNamespace()
	if want == "" {
		want = OwnershipSingle
		if root {
			want = OwnershipRoot
		} else if c, err := subIDStoreConfig(); err == nil {
			return c, nil
		}
	}
	c := storeConfig{Ownership: want}
	switch want {
	case OwnershipRoot:
		if !root {
			return c, fmt.Errorf("%w: ownership %q needs root", ErrUnsupported, want)
		}
	case OwnershipSingle:
	case OwnershipSubIDs:
		return subIDStoreConfig()
	default:
		return c, fieldErrorf("Ownership", "%q is not one of %q, %q, %q", want, OwnershipRoot, OwnershipSubIDs, OwnershipSingle)
	}
	return c, nil
}

// subIDStoreConfig is for a store with subordinate ids, if they can really be had.
func subIDStoreConfig() (storeConfig, error) {
	c := storeConfig{Ownership: OwnershipSubIDs}
	var err error
	if c.UIDMap, c.GIDMap, err = SubordinateIDs(); err != nil {
		return c, err
	}
	ns, err := newUserNamespace(context.Background(), c.UIDMap, c.GIDMap)
	if err != nil {
		return c, err
	}
	return c, ns.Close()
}

// inUserNamespace tells whether this process is in a user namespace other than the first.
func inUserNamespace() bool {
	b, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && strings.Join(strings.Fields(string(b)), " ") != "0 0 4294967295"
}

// stage is a directory in ingest, for a layer to be.
type stage struct {
	store *Store
	name  string // in the store
	owner *os.File
}

// newStage makes one. It must be discarded in the end; that does nothing after commit.
func (s *Store) newStage() (*stage, error) {
	dir, err := os.MkdirTemp(filepath.Join(s.dir, "ingest"), "")
	if err != nil {
		return nil, err
	}
	at("stage: directory")
	st := &stage{store: s, name: "ingest/" + filepath.Base(dir)}
	st.owner, err = os.OpenFile(filepath.Join(dir, "owner"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	at("stage: owner")
	if err == nil {
		err = unix.Flock(int(st.owner.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	at("stage: locked")
	if err == nil {
		err = os.Mkdir(filepath.Join(dir, "fs"), 0o700)
	}
	at("stage: tree")
	if err != nil {
		st.discard()
		return nil, err
	}
	return st, nil
}

// openRoot opens the directory into which the layer is unpacked.
func (st *stage) openRoot() (int, error) {
	return openRetry(func() (int, error) {
		return unix.Open(filepath.Join(st.store.dir, st.name, "fs"), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	})
}

// commit makes the layer visible, by one rename. The caller holds the layer's lock, so what is
// there already is not valid and goes to the trash.
func (st *stage) commit(m *layerMeta) error {
	s := st.store
	if err := s.writeJSON(st.name+"/meta.json", m); err != nil {
		return err
	}
	at("layer: described")
	to := "layers/" + m.DiffID.hex()
	if err := s.toTrash(to); err != nil {
		return err
	}
	os.Remove(filepath.Join(s.dir, st.name, "owner"))
	at("layer: without owner")
	if err := os.Rename(filepath.Join(s.dir, st.name), filepath.Join(s.dir, to)); err != nil {
		return err
	}
	at("layer: in its place")
	st.owner.Close()
	st.owner = nil
	return nil
}

// discard removes the stage.
func (st *stage) discard() error {
	if st.owner == nil {
		return nil
	}
	defer st.owner.Close()
	return st.store.removeLayer(context.Background(), st.name)
}

// toTrash moves something out of the way, if it is there, and deletes it.
func (s *Store) toTrash(name string) error {
	if _, err := os.Lstat(filepath.Join(s.dir, name)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	dir, err := os.MkdirTemp(filepath.Join(s.dir, "trash"), "")
	if err != nil {
		return err
	}
	at("trash: directory")
	if err := os.Rename(filepath.Join(s.dir, name), filepath.Join(dir, "x")); err != nil {
		os.Remove(dir)
		return err
	}
	at("trash: moved")
	s.background.Go(func() {
		trash := "trash/" + filepath.Base(dir)
		s.removeLayer(context.Background(), trash+"/x")
		at("trash: emptied")
		s.remove(trash)
		at("trash: gone")
	})
	return nil
}

// removeLayer deletes a layer, after its files have been given back to the user.
func (s *Store) removeLayer(ctx context.Context, name string) error {
	m := new(layerMeta)
	if s.config.Ownership == OwnershipSubIDs && s.readJSON(name+"/meta.json", m) == nil {
		if root, err := os.Open(filepath.Join(s.dir, name, "fs")); err == nil {
			err = s.takeBack(ctx, root, m.Owners)
			root.Close()
			if err != nil {
				return err
			}
		}
	}
	return s.remove(name)
}

// remove deletes a tree of the store.
func (s *Store) remove(name string) error {
	dir, base := filepath.Split(filepath.Join(s.dir, name))
	fd, err := openRetry(func() (int, error) { return unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return removeTree(fd, base)
}

// cleanIngest removes what processes that have died have left behind.
func (s *Store) cleanIngest(ctx context.Context) {
	old := func(dir string) (names []string) {
		entries, _ := os.ReadDir(filepath.Join(s.dir, dir))
		for _, e := range entries {
			// It may be so new that its owner has not locked it yet, or is about to rename it.
			if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > time.Minute {
				names = append(names, dir+"/"+e.Name())
			}
		}
		return names
	}
	for _, name := range old("trash") {
		s.removeLayer(ctx, name+"/x")
		s.remove(name)
	}
	for _, name := range old("ingest") {
		f, err := os.OpenFile(filepath.Join(s.dir, name, "owner"), os.O_RDWR, 0)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) { // not yet or no more a layer's, or a small file
			s.removeLayer(ctx, name)
		}
		if err != nil {
			continue
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			s.removeLayer(ctx, name)
		}
		f.Close()
	}
}

// promote makes an image durable in the background, some time after it was pulled: the kernel has written most of it
// by then, so it costs next to nothing.
func (s *Store) promote(r *imageRecord) {
	const settled = 2 * time.Minute
	if r.Durable || time.Since(r.Created) < settled {
		return
	}
	if _, done := s.promoted.LoadOrStore(r.Manifest, true); done {
		return
	}
	copied := *r
	s.background.Go(func() {
		lock, err := s.lockShared(context.Background())
		if err == nil {
			s.makeDurable(context.Background(), &copied)
			lock.unlock()
		}
	})
}

// makeDurable writes everything that the store's file system holds to the disk, and then says so in
// the records of an image and its layers. One syncfs(2) costs a small part of one fsync per file.
func (s *Store) makeDurable(ctx context.Context, r *imageRecord) error {
	dir, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := unix.Syncfs(int(dir.Fd())); err != nil {
		return fmt.Errorf("syncfs: %w", err)
	}
	for _, l := range r.Layers {
		if err := ctx.Err(); err != nil {
			return err
		}
		m, err := s.haveLayer(l.DiffID)
		if err != nil {
			return err
		}
		if m == nil || m.Durable {
			continue
		}
		m.Durable = true
		if err := s.writeJSON("layers/"+l.DiffID.hex()+"/meta.json", m); err != nil {
			return err
		}
	}
	r.Durable = true
	if err := s.writeJSON("images/"+r.Manifest.hex()+".json", r); err != nil {
		return err
	}
	return unix.Syncfs(int(dir.Fd()))
}
