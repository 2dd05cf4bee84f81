//go:build !linux

package container

import "context"

// Store keeps images, unpacked, in a directory. It needs Linux.
type Store struct{}

// OpenStore returns ErrUnsupported: images are unpacked on Linux only.
func OpenStore(dir string, opt *StoreOptions) (*Store, error) {
	return nil, &Error{Op: "open store", Path: dir, Err: ErrUnsupported}
}

// Close does nothing.
func (s *Store) Close() error { return nil }

// Dir is the directory of the store.
func (s *Store) Dir() string { return "" }

// IDMappings returns nothing.
func (s *Store) IDMappings() (uid, gid []IDMap) { return nil, nil }

// Pull returns ErrUnsupported.
func (s *Store) Pull(ctx context.Context, ref string, opt *PullOptions) (*Image, error) {
	return nil, &Error{Op: "pull", Path: ref, Err: ErrUnsupported}
}

// Load returns ErrUnsupported.
func (s *Store) Load(ctx context.Context, source string, opt *PullOptions) (*Image, error) {
	return nil, &Error{Op: "load", Path: source, Err: ErrUnsupported}
}

// Open returns ErrUnsupported.
func (s *Store) Open(ctx context.Context, source string, opt *PullOptions) (*Image, error) {
	return s.Pull(ctx, source, opt)
}
