package container

import "sync"

// answered is sync.OnceValues for a question that the host may fail to answer, for want of files or
// memory: then it is asked again the next time.
func answered[T any](ask func() (T, error)) func() (T, error) {
	var mu sync.Mutex
	var known bool
	var kept T
	return func() (T, error) {
		mu.Lock()
		defer mu.Unlock()
		if known {
			return kept, nil
		}
		answer, err := ask()
		if err == nil {
			kept, known = answer, true
		}
		return answer, err
	}
}
