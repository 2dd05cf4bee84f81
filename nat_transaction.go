//go:build linux

package container

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// This file changes the tables: each change is one transaction, of which the kernel does all or nothing. It runs in the caller's process.

// natTableName is the name of a store's tables. One store is all that most hosts have.
func natTableName(dir string) string {
	if dir == defaultNetworkStateDir {
		return "container"
	}
	sum := sha256.Sum256([]byte(dir))
	return "container-" + hex.EncodeToString(sum[:4])
}

// table is the table of a family.
func (n *nat) table(bridge bool) *nftables.Table {
	if bridge {
		return n.bridge
	}
	return n.inet
}

// set is a set as the library has it.
func (n *nat) set(s *natSet) *nftables.Set {
	set := &nftables.Set{Table: n.table(s.bridge), Name: s.name, ID: s.id(), KeyType: nftables.MustConcatSetType(s.key...), Concatenation: len(s.key) > 1}
	if len(s.key) == 1 {
		set.KeyByteOrder = binaryutil.NativeEndian // of text; only nft(8) wants to know
	}
	if s.val != nil {
		set.IsMap, set.DataType = true, nftables.MustConcatSetType(s.val...)
	}
	return set
}

// natTransaction is a change under construction.
type natTransaction struct {
	n        *nat
	c        *nftables.Conn
	messages int
	err      error
}

// mustBeThere makes the change fail with ENOENT if the rules are not there, or are another version's.
func (t *natTransaction) mustBeThere() {
	for _, bridge := range []bool{false, true} {
		t.c.FlushChain(&nftables.Chain{Table: t.n.table(bridge), Name: natVersion}) // it is empty
		t.messages++
	}
}

// deleteTables deletes both tables, whether they are there or not.
func (t *natTransaction) deleteTables() {
	for _, table := range []*nftables.Table{t.n.inet, t.n.bridge} {
		t.c.AddTable(table)
		t.c.DelTable(table)
		t.messages += 2
	}
}

// makeTables makes both tables with their sets, chains and rules. There must be none.
func (t *natTransaction) makeTables() {
	t.c.AddTable(t.n.inet)
	t.c.AddTable(t.n.bridge)
	t.messages += 2
	for _, s := range natSets {
		t.err = errors.Join(t.err, t.c.AddSet(t.n.set(s), nil))
		t.messages++
	}
	chains := natChains()
	made := make([]*nftables.Chain, len(chains))
	for i, c := range chains {
		made[i] = &nftables.Chain{Table: t.n.table(c.bridge), Name: c.name, Type: c.typ, Hooknum: c.hook, Priority: c.priority}
		t.c.AddChain(made[i])
		t.messages++
	}
	for i, c := range chains {
		for _, r := range c.rules {
			t.c.AddRule(&nftables.Rule{Table: made[i].Table, Chain: made[i], Exprs: r})
			t.messages++
		}
	}
}

// natChunk is how many elements a message has: its attribute's length has 16 bits.
const natChunk = 256

func (t *natTransaction) add(elements []natElement)    { t.each(elements, t.c.SetAddElements) }
func (t *natTransaction) remove(elements []natElement) { t.each(elements, t.c.SetDeleteElements) }

func (t *natTransaction) each(elements []natElement, f func(*nftables.Set, []nftables.SetElement) error) {
	sets := natBySet(elements)
	for _, s := range natSets {
		for part := range slices.Chunk(sets[s], natChunk) {
			t.err = errors.Join(t.err, f(t.n.set(s), part))
			t.messages++
		}
	}
}

// commit carries out a change. The kernel's error is not about one message of it, and its acknowledgements need room in the socket:
// if they are lost the change is made again, so it must be one that can be.
func (n *nat) commit(change func(t *natTransaction)) error {
	const tries = 5
	for i := range tries {
		t := &natTransaction{n: n}
		var room int
		c, err := nftables.New(nftables.WithSockOptions(func(s *netlink.Conn) error {
			if room <= 128<<10 {
				return nil
			}
			return errors.Join(s.SetReadBuffer(room), s.SetWriteBuffer(room))
		}))
		if err != nil {
			return natError("change rules", err)
		}
		t.c = c
		change(t)
		if t.err != nil {
			return natError("change rules", t.err)
		}
		// A message of elements is up to 30 KiB, an acknowledgement takes up to 2 KiB of memory and comes with the message.
		room = t.messages << (11 + i)
		if t.messages > 20 {
			room += t.messages << 15
		}
		if err = c.Flush(); err == nil {
			return nil
		}
		if i == tries-1 || !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EMSGSIZE) {
			return natError("change rules", err)
		}
	}
	return nil
}

// natError says what can be done about errors of the kernel.
func natError(op string, err error) error {
	e := &Error{Op: op, Path: "nftables", Err: err}
	switch {
	case errors.Is(err, unix.EPERM):
		e.Remedy = "it needs CAP_NET_ADMIN in the user namespace that the network namespace belongs to"
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EAFNOSUPPORT):
		e.Err = fmt.Errorf("%w: %w", ErrUnsupported, err)
		e.Remedy = "the kernel needs nftables for the families inet and bridge, with nat, fib and reject"
	}
	return e
}
