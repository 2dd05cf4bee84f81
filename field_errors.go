package container

import (
	"errors"
	"fmt"
)

// This file collects complaints, so that a check can tell of all of them at once.

// fieldErrors is a list of complaints under construction.
type fieldErrors []error

// addf adds a FieldError.
func (e *fieldErrors) addf(field, format string, args ...any) {
	*e = append(*e, fieldErrorf(field, format, args...))
}

// add adds an error if it is one. Errors that were joined are added one by one.
func (e *fieldErrors) add(err error) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		if _, ok := err.(*FieldError); !ok {
			*e = append(*e, joined.Unwrap()...)
			return
		}
	}
	if err != nil {
		*e = append(*e, err)
	}
}

// join returns all complaints as one error, or nil.
func (e fieldErrors) join() error { return errors.Join(e...) }

// mapKey names an element of a map: Sysctl["net.ipv4.ip_forward"]. The key is cut to a length that
// can be read.
func mapKey(field, key string) string {
	if len(key) > 100 {
		key = key[:100] + "..."
	}
	return fmt.Sprintf("%s[%q]", field, key)
}

// index names an element of a list: "Mounts[2]".
func index(field string, i int) string { return fmt.Sprintf("%s[%d]", field, i) }

// inField puts the name of what a field is in before it: "Rlimits[2]" before "Type".
func inField(outer string, err error) error {
	if f, ok := err.(*FieldError); ok {
		return &FieldError{Field: outer + "." + f.Field, Problem: f.Problem, Err: f.Err}
	}
	return err
}
