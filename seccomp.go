package container

// SeccompProfile says which system calls the container's processes may make.
type SeccompProfile struct{}
