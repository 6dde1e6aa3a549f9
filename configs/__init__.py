"""What is fixed: the typed configuration of a run, its YAML files and how they are resolved. Never imports torch."""
