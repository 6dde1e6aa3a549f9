"""Search from Python: a script, or the cells of a notebook.

    python examples/notebook.py

It trains twelve small trials on scikit-learn's digits in about half a minute on two CPU cores.
"""

# %% Search: a shipped space, a file of yours, or a dictionary with the same content.
from pathlib import Path

from orchestrator import api

SPACE = {
    "name": "omega_by_hand",
    "base": "stal/srnn_digits",
    "overrides": {"training.epochs": 8},
    "parameters": {
        "loss.omega": {"type": "float", "low": 1e-6, "high": 5e-4, "log": True},
        "loss.c": {"type": "float", "low": 0.1, "high": 10, "log": True},
    },
    "objectives": [
        {"metric": "val_accuracy", "direction": "maximize"},
        {"metric": "val_spike_density", "direction": "minimize"},
    ],
    "budget": {"trials": 12},
}


def main() -> None:
    """Search, look at the front and write two figures."""
    results = api.search(SPACE)

    # %% The front and all trials, as data frames.
    print(results.front()[["val_accuracy", "val_spike_density", "params.loss.omega", "params.loss.c"]])
    print(results.trials_dataframe().describe())

    # %% The best trial that keeps the constraints, with the configuration that repeats it.
    best = results.best()
    print(f"trial {best.number}: {best.metrics['val_accuracy']:.4f}")
    print(f"omega {results.config(best.number).loss.omega:.3g}")

    # %% Figures of plotly; in a notebook the figure alone shows itself.
    results.plot_front().write_html(Path("runs") / "front.html")
    results.plot_curves("val_accuracy").write_html(Path("runs") / "curves.html")

    # %% Later, or from another process while the search runs:
    print(api.load("omega_by_hand"))


if __name__ == "__main__":
    main()
