"""Medians and their ratios."""

from __future__ import annotations

import statistics
from typing import Any

from harness.driver import Record


def summary(record: Record) -> dict[str, Any]:
    """A variant as results.json keeps it."""
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
    """Beside every variant: how many times as fast as ``baseline`` it is, and how many times as
    fast as it ``ours`` is, by wall and by CPU seconds. With the ratio of the medians go the
    lowest and highest ratio of any one round."""
    for variant in variants.values():
        if "not_run" in variant:
            continue
        for clock in ("wall", "cpu"):
            own = variant[clock]
            for key, other, slower in (
                ("speed_over_baseline", baseline, "other"),
                ("ours_is_faster", ours, "own"),
            ):
                there = variants.get(other, {}).get(clock)
                if there is None:
                    continue
                pair = (there, own) if slower == "other" else (own, there)
                variant.setdefault(key, {})[clock] = _ratio(*pair)


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
