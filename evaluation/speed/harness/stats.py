"""Medians and their ratios."""

from __future__ import annotations

import statistics
from typing import Any

from harness.driver import Record


def summary(record: Record) -> dict[str, Any]:
    """Return the results of a variant in the form of results.json."""
    if record.not_run is not None:
        return {"not_run": record.not_run, "package_missing": record.missing}
    result: dict[str, Any] = {
        "wall": _spread(record.wall),
        "cpu": _spread(record.cpu),
        "peak_rss_mb": record.peak_rss_mb,
        "versions": record.versions,
    }
    if record.notes:
        result["notes"] = record.notes
    if record.round_notes:
        result["round_notes"] = record.round_notes
    return result


def add_ratios(variants: dict[str, dict[str, Any]], baseline: str, ours: str) -> None:
    """Add to every variant its speed over ``baseline``, and the speed of ``ours`` over it, by wall
    and CPU time: the ratio of the medians, and the lowest and highest ratio of a single round."""
    for variant in variants.values():
        if "not_run" in variant:
            continue
        for clock in ("wall", "cpu"):
            reference = variants.get(baseline, {}).get(clock)
            if reference is not None:
                ratios = variant.setdefault("speed_over_baseline", {})
                ratios[clock] = _ratio(reference, variant[clock])
            best = variants.get(ours, {}).get(clock)
            if best is not None:
                variant.setdefault("ours_is_faster", {})[clock] = _ratio(variant[clock], best)


def _ratio(slow: dict[str, Any], fast: dict[str, Any]) -> dict[str, float]:
    rounds = [a / b for a, b in zip(slow["seconds"], fast["seconds"], strict=True)]
    return {
        "median": round(slow["median"] / fast["median"], 3),
        "min": round(min(rounds), 3),
        "max": round(max(rounds), 3),
    }


def _spread(seconds: list[float]) -> dict[str, Any]:
    return {
        "median": round(statistics.median(seconds), 5),
        "min": round(min(seconds), 5),
        "max": round(max(seconds), 5),
        "seconds": [round(value, 5) for value in seconds],
    }
