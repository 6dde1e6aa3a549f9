"""Who runs a study: ask, queue, tell, stop, and what people ask of it."""
