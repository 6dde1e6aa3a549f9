"""One file per change of our tables, oldest first."""
