"""Measurements that docs/benchmarks.md reports; each module runs by itself: `python -m benchmarks.overhead`."""
