"""Where studies are kept: the database, its tables, and Optuna's record in it."""
