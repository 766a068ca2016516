package retry

import "time"

// Do calls f until it succeeds, waiting twice as long after each failure.
func Do(attempts int, first time.Duration, f func() error) error {
	wait := first
	var err error
	for i := 0; i < attempts; i++ {
		if err = f(); err == nil {
			return nil
		}
		time.Sleep(wait)
		wait *= 2
	}
	return err
}
