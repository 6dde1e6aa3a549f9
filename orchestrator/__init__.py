"""Who runs what, and what became of it: studies, jobs, workers and the views of them."""
