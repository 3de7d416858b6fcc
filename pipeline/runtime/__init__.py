"""What every command shares: errors as sentences, locks, signals, whole files, progress."""
