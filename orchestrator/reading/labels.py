"""Names, numbers and times as people read them: one wording for the terminal and the report."""

from __future__ import annotations

import math

from orchestrator.storage.tables import EndReason

SPLITS = {"val": "validation", "train": "training", "test": "test"}
UNITS = {"seconds": "s", "mb": "MB", "mj": "mJ", "hours": "h"}

END_REASONS: dict[str, str] = {
    EndReason.FINISHED: "ran all its epochs",
    EndReason.RUNG: "stopped early: behind other trials at the same epoch",
    EndReason.DOMINATED: "stopped early: dominated by other trials at the same epoch",
    EndReason.CONSTRAINT: "stopped early: a constraint can no longer be kept",
    EndReason.NAN: "the loss became NaN or infinite",
    EndReason.DEAD_SPIKES: "stopped early: no layer spikes",
    EndReason.SATURATED: "stopped early: every layer spikes at every step",
    EndReason.OOM: "out of memory",
    EndReason.HANG: "made no progress for too long",
    EndReason.ERROR: "an error in the trainer or its data",
    EndReason.CRASH: "the trial's process died",
    EndReason.LOST: "the worker died or could not be reached",
    EndReason.PREEMPTED: "left with a checkpoint, to go on later",
    EndReason.CANCELLED: "cancelled",
}


def metric_label(name: str, *, unit: bool = False) -> str:
    """Return a metric's name in words, e.g. `val_spike_density` as "Validation spike density".

    Args:
        name: the metric's name; a part after a dot names a layer.
        unit: add the unit in brackets where the name tells it.
    """
    base, _, layer = name.partition(".")
    words = base.split("_")
    words[0] = SPLITS.get(words[0], words[0])
    suffix = UNITS.get(words[-1])
    if suffix is not None:
        words = words[:-1]
    elif words[-1] == "accuracy":
        suffix = "%"
    label = " ".join(words)
    label = label[:1].upper() + label[1:] + (f", {layer}" if layer else "")
    return f"{label} [{suffix}]" if unit and suffix else label


def short_metric(name: str) -> str:
    """Return a metric's name for a narrow column, e.g. `val_spike_density` as "spike density"."""
    first, _, rest = name.partition("_")
    return (rest if first == "val" and rest else name).replace("_", " ")


def metric_text(name: str, value: float | None) -> str:
    """Return a metric's value with its unit, short enough for a table."""
    if value is None or math.isnan(value):
        return "-"
    if name.partition(".")[0].endswith("accuracy"):
        return f"{100 * value:.2f} %"
    unit = UNITS.get(name.rsplit("_", 1)[-1])
    return number_text(value) + (f" {unit}" if unit else "")


def number_text(value: object) -> str:
    """Return a parameter or metric value with at most four significant digits."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or (value.is_integer() and abs(value) < 1e6):
        return str(int(value))
    return f"{value:.4g}"


def rounded(value: float) -> str:
    """Return a number with three digits: "0.043", "7.25", "1,204"."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def short_keys(keys: list[str]) -> dict[str, str]:
    """Return for each dotted key the shortest ending that says what it is and tells it from the others.

    A last part of one letter, or `name`, says too little: `loss.c` and `optimizer.name` keep their section.
    """
    short = {}
    for key in keys:
        parts = key.split(".")
        endings = [".".join(parts[-n:]) for n in range(1, len(parts) + 1)]
        short[key] = next(
            ending
            for ending in endings
            if ending == key
            or (
                (len(ending) > 1 and ending != "name")
                and sum(other == ending or other.endswith("." + ending) for other in keys) == 1
            )
        )
    return short


def duration(seconds: float | None) -> str:
    """Return a time span: "4.2 s", "3 min 20 s", "2 h 05 min", "3 d 4 h"."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    if seconds < 10:
        return f"{max(seconds, 0):.1f} s"
    whole = round(seconds)
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if minutes < 1:
        return f"{whole} s"
    if hours < 1:
        return f"{minutes} min {whole % 60:02d} s"
    if days < 1:
        return f"{hours} h {minutes % 60:02d} min"
    return f"{days} d {hours % 24} h"


def hours(seconds: float) -> str:
    """Return a time span in hours: "0.043 h", "7.25 h", "1,204 h"."""
    return f"{rounded(seconds / 3600)} h"


def roughly(seconds: float | None) -> str:
    """Return an estimated time span, no finer than an estimate is: "about 40 s", "about 3 min", "about 2 h 10 min"."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    if seconds < 60:
        return f"about {max(5, 5 * round(seconds / 5))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"about {minutes} min"
    if minutes < 1440:
        minutes = 10 * round(minutes / 10)
        return f"about {minutes // 60} h" + (f" {minutes % 60} min" if minutes % 60 else "")
    return f"about {minutes / 1440:.1f} days"


def ago(seconds: float) -> str:
    """Return how long ago something was: "just now", "40 s ago", "7 min ago", "5 h ago", "3 days ago"."""
    if seconds < 5:
        return "just now"
    if seconds < 60:
        return f"{seconds:.0f} s ago"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min ago"
    if seconds < 172800:
        return f"{seconds / 3600:.0f} h ago"
    return f"{seconds / 86400:.0f} days ago"


def end_text(end_reason: str | None) -> str:
    """Return an end reason in words; one that a newer version wrote stays as it is."""
    return END_REASONS.get(end_reason or "", end_reason or "")
