package seccomp

import "fmt"

// This file holds the actions, SECCOMP_RET_* in linux/seccomp.h.

// The actions without data. See seccomp(2).
const (
	KillProcess Action = 0x80000000
	KillThread  Action = 0x00000000
	Trap        Action = 0x00030000
	Notify      Action = 0x7fc00000
	Log         Action = 0x7ffc0000
	Allow       Action = 0x7fff0000
)

const (
	errno      Action = 0x00050000
	trace      Action = 0x7ff00000
	actionData Action = 0x0000ffff
)

// Errno lets the call fail with an error number. The kernel takes 4095 for any larger one, and lets it return 0 for 0.
func Errno(number uint16) Action { return errno | Action(number) }

// Trace lets a tracer decide, which gets the message.
func Trace(message uint16) Action { return trace | Action(message) }

func (a Action) String() string {
	data := uint16(a & actionData)
	switch a &^ actionData {
	case errno:
		return fmt.Sprintf("errno %d", data)
	case trace:
		return fmt.Sprintf("trace %d", data)
	case KillProcess:
		return "kill process"
	case KillThread:
		return "kill thread"
	case Trap:
		return "trap"
	case Notify:
		return "notify"
	case Log:
		return "log"
	case Allow:
		return "allow"
	}
	return fmt.Sprintf("%#x", uint32(a))
}
