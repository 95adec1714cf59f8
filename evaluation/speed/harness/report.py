"""Writer of results.json, the plots, and the tables of README.md.

python evaluation/speed/bench.py --render   # the tables and plots of the stored results.json
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from harness.labels import label
from harness.plot import write_curves, write_ratios
from simcse_kit.utils.files import write_atomic

BEGIN, END = "<!-- rendered from results.json -->", "<!-- end of the rendered part -->"


def write_outputs(document: dict[str, Any], folder: Path) -> None:
    """Write results.json, the plots, and the tables to README.md or, without one, to tables.md."""
    text = json.dumps(document, indent=1)
    # Innermost lists and tables of numbers take one line each.
    text = re.sub(r"[\[{][\w\s.,:\"+-]*[\]}]", lambda found: " ".join(found[0].split()), text)
    write_atomic(folder / "results.json", text + "\n")
    write_ratios(document, folder / "results.svg")
    write_curves(document, folder / "curves.svg")
    write_tables(document, folder)


def write_tables(document: dict[str, Any], folder: Path) -> None:
    readme = folder / "README.md"
    tables = render(document)
    if not readme.is_file():
        write_atomic(folder / "tables.md", tables)
        return
    before, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    write_atomic(readme, f"{before}{BEGIN}\n\n{tables}\n{END}{after}")


# ------------------------------------------------------------------------------------- tables


def render(document: dict[str, Any]) -> str:
    """Return the environment, a summary, and a table for each group of tasks, as Markdown."""
    tasks = document["tasks"]
    groups = list(dict.fromkeys(task["group"] for task in tasks.values()))
    parts = [_environment(document), _summary(tasks)]
    for group in groups:
        members = [task for task in tasks.values() if task["group"] == group]
        parts.append(f"### {group}\n\n" + "\n\n".join(map(_task, members)))
    return "\n\n".join(part for part in parts if part) + "\n"


def _environment(document: dict[str, Any]) -> str:
    where = document["environment"]
    dates = sorted({task["date"] for task in document["tasks"].values()})
    versions: dict[str, set[str]] = {}
    for task in document["tasks"].values():
        for variant in task["variants"].values():
            for package, version in variant.get("versions", {}).items():
                versions.setdefault(package, set()).add(version)
    listed = ", ".join(f"{name} {' and '.join(sorted(v))}" for name, v in sorted(versions.items()))
    return (
        f"Measured {' to '.join(dict.fromkeys([dates[0], dates[-1]]))} on {where['cores']} cores "
        f"({where['cpu']}; {' '.join(where['cpu_flags'])}), {where['memory_gb']} GB, "
        f"{where['system']}, {where['threads']} threads for every variant. {listed}."
    )


def _summary(tasks: dict[str, Any]) -> str:
    """Return a table of the speed of our fastest variant over each peer."""
    rows = ["| task | speed of simcse_kit over |", "|---|---|"]
    for task in tasks.values():
        ratios = [
            f"{label(name)}: {variant['ours_is_faster']['wall']['median']:.2f}"
            for name, variant in task["variants"].items()
            if "ours_is_faster" in variant and _is_peer(name)
        ]
        if ratios and "curves" not in task:
            rows.append(f"| {task['group']}: {task['title']} | {'<br>'.join(ratios)} |")
    return "\n".join(rows) if len(rows) > 2 else ""


def _is_peer(name: str) -> bool:
    return not name.startswith(("ours", "python"))


def _task(task: dict[str, Any]) -> str:
    texts = [f"**{task['title']}.** {_settings(task['settings'])}"]
    if "curves" in task:
        curves = task["curves"]
        ours, theirs = curves["second_half_means"]
        verdict = "within" if curves["within_noise"] else "**beyond**"
        texts.append(
            f"Mean loss over the second half of the steps: {ours:.4f} here, {theirs:.4f} with the "
            f"original step. The difference, {curves['difference']:.4f}, is {verdict} twice its "
            f"standard error over the seeds, {curves['standard_error']:.4f}."
        )
        texts += _missing(task)
        return "\n\n".join(texts)
    columns = _columns(task)
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, variant in task["variants"].items():
        if "not_run" not in variant:
            cells = [label(name), *(cell(variant) for cell in list(columns.values())[1:])]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n\n".join([*texts, "\n".join(lines), *_missing(task)])


def _missing(task: dict[str, Any]) -> list[str]:
    notes = [
        f"{label(name)}: not run: {variant['not_run']}"
        for name, variant in task["variants"].items()
        if "not_run" in variant
    ]
    return ["; ".join(notes) + "."] if notes else []


def _columns(task: dict[str, Any]) -> dict[str, Any]:
    """Return heading and cell function of the columns that any variant of the task fills."""

    def spread(variant: dict[str, Any]) -> str:
        wall = variant["wall"]
        return f"{_seconds(wall['median'])} ({_seconds(wall['min'])} to {_seconds(wall['max'])})"

    def ratio(key: str, clock: str = "wall") -> Any:
        def cell(variant: dict[str, Any]) -> str:
            return f"{variant[key][clock]['median']:.2f}" if key in variant else "-"

        return cell

    columns: dict[str, Any] = {
        "variant": None,
        "seconds, median (min to max)": spread,
        f"speed over {label(task['baseline'])}": ratio("speed_over_baseline"),
        "the same, CPU time": ratio("speed_over_baseline", "cpu"),
        f"speed of {label(task['ours'])} over this": ratio("ours_is_faster"),
        "peak MB": lambda variant: f"{variant['peak_rss_mb']:.0f}",
    }
    for key, heading in (
        ("sentences_per_second", "sentences/s"),
        ("max_difference", "largest difference of vectors"),
        ("sts_spearman", f"Spearman, {task['settings'].get('graded')}"),
    ):
        if any(key in variant for variant in task["variants"].values()):
            columns[heading] = lambda variant, key=key: f"{variant.get(key, '-')}"
    if any("batch" in variant.get("notes", {}) for variant in task["variants"].values()):
        columns["batch"] = lambda variant: f"{variant.get('notes', {}).get('batch', '')}"
    if any("scores" in variant for variant in task["variants"].values()):
        columns["mean score"] = lambda variant: f"{_mean(variant['scores']):.3f}"
    return columns


def _mean(scores: dict[str, float]) -> float:
    return sum(scores.values()) / len(scores)


def _seconds(value: float) -> str:
    return f"{value:.3f}" if value < 1 else f"{value:.2f}"


def _settings(settings: dict[str, Any]) -> str:
    parts = []
    for key, value in settings.items():
        if isinstance(value, dict):
            value = ", ".join(f"{name} {number}" for name, number in value.items())
        parts.append(f"{key.replace('_', ' ')}: {value}")
    return "; ".join(parts) + "."
