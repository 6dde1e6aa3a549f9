"""Executors start and stop workers; they know nothing of trials."""
