//go:build linux && !amd64 && !arm64

package launch

// There is no launcher for this architecture: a port is one .s file and one ELF machine number.
const elfMachine = 0

func code() []byte { return nil }
