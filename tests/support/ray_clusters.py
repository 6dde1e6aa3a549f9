"""Ray clusters of this machine alone, ended whatever a test does."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from searching import SUPPORT

# Ray forks its processes while it has threads and leaves their pipes to the garbage collector.
warnings_of_ray_are_ignored = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
LIGHT = {"include_dashboard": False, "object_store_memory": 80 * 2**20}


@contextlib.contextmanager
def cluster(*nodes: dict[str, Any]) -> Iterator[Any]:
    """Start a cluster; the first node is its head.

    Args:
        nodes: what each has: `num_cpus`, `num_gpus`, `resources`.
    """
    pytest.importorskip("ray", reason="install the extra `ray`")
    before = dict(os.environ)
    os.environ.update(PYTHONPATH=str(SUPPORT), RAY_USAGE_STATS_ENABLED="0", OMP_NUM_THREADS="1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Ray's own imports
        from ray.cluster_utils import Cluster

        head, *others = nodes
        started = Cluster(initialize_head=True, head_node_args={**LIGHT, **head})
        try:
            for node in others:
                started.add_node(**{**LIGHT, **node})
            yield started
        finally:
            started.shutdown()
            os.environ.clear()
            os.environ.update(before)
