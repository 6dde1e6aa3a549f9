"""What may vary: the typed search space, its loader and checker, and the shipped spaces."""
