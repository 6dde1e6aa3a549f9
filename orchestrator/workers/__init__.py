"""Who takes jobs: a worker, its attempt at a trial, and the trial's own process."""
