//go:build !linux

package container

// hostFacts returns ErrUnsupported.
func hostFacts(bounding uint64) (*seccompFacts, error) { return nil, unsupported("seccomp", "") }
