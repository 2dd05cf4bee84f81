package container

import "reflect"

// This file copies configurations, so that what the caller changes later changes no container.

// deepCopy returns a copy of v that shares no slice, map or pointer to data with it. Interfaces and
// pointers to types of other packages, such as the logger, are kept.
func deepCopy[T any](v T) T {
	return copyValue(reflect.ValueOf(v)).Interface().(T)
}

func copyValue(v reflect.Value) reflect.Value {
	out := reflect.New(v.Type()).Elem()
	out.Set(v)
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if out.Field(i).CanSet() {
				out.Field(i).Set(copyValue(v.Field(i)))
			}
		}
	case reflect.Slice:
		if !v.IsNil() {
			out.Set(reflect.MakeSlice(v.Type(), v.Len(), v.Len()))
			if plain(v.Type().Elem().Kind()) {
				reflect.Copy(out, v)
				break
			}
			for i := range v.Len() {
				out.Index(i).Set(copyValue(v.Index(i)))
			}
		}
	case reflect.Map:
		if !v.IsNil() {
			out.Set(reflect.MakeMapWithSize(v.Type(), v.Len()))
			for it := v.MapRange(); it.Next(); {
				out.SetMapIndex(it.Key(), copyValue(it.Value()))
			}
		}
	case reflect.Pointer:
		if p, ok := v.Interface().(*SeccompProfile); ok {
			return reflect.ValueOf(p.clone())
		}
		if !v.IsNil() && (v.Elem().Kind() != reflect.Struct || v.Type().Elem().PkgPath() == reflect.TypeFor[Config]().PkgPath()) {
			out.Set(reflect.New(v.Type().Elem()))
			out.Elem().Set(copyValue(v.Elem()))
		}
	}
	return out
}

// plain tells whether values of a kind hold no pointers to what could change.
func plain(k reflect.Kind) bool { return k <= reflect.Complex128 || k == reflect.String }
