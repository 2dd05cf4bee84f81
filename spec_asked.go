package container

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// This file finds out what a part of an OCI specification asks for, to name what cannot be done.

// zeroCounts are the fields of which zero asks for something else than nothing.
var zeroCounts = []string{"linux.resources.memory.swappiness"}

// unlimited are those of which -1 asks for what is the case where nobody limits anything.
var unlimited = []string{
	"linux.resources.memory.kernel", "linux.resources.memory.kernelTCP",
}

// asked returns the names of the fields below v, whose own name is name, that ask for something. Zero
// asks for nothing, also behind a pointer: that is how clients write "default".
func asked(name string, v any) []string { return askedFor(name, reflect.ValueOf(v)) }

func askedFor(name string, v reflect.Value) (names []string) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return nil
		}
		if slices.Contains(zeroCounts, name) {
			return []string{name}
		}
		return askedFor(name, v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			field, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
			names = append(names, askedFor(name+"."+field, v.Field(i))...)
		}
		return names
	case reflect.Map:
		for _, key := range v.MapKeys() {
			names = append(names, fmt.Sprintf("%s[%q]", name, key))
		}
		slices.Sort(names)
		return names
	case reflect.Slice:
		if v.Len() > 0 {
			return []string{name}
		}
		return nil
	case reflect.Int64:
		if v.Int() == -1 && slices.Contains(unlimited, name) {
			return nil
		}
	}
	if v.IsZero() {
		return nil
	}
	return []string{name}
}
