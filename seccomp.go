package container

// SeccompProfile says which system calls the container's processes may make. Profiles are not
// compiled yet: a Config with one is refused when it is run, with an error that wraps ErrUnsupported.
type SeccompProfile struct{}
