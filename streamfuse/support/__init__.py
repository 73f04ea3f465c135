"""General helpers: queues between threads, retry delays, atomic file writes, notes, URLs without their secrets."""
