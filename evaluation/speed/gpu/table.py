"""The measurements as tables, and the goals with what was reached."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Document = dict[str, Any]
_HARD = "-hard-negative"


def _system(document: Document, task: str, name: str, key: str) -> float:
    value: float = document["tasks"][task]["systems"][name][key]
    return value


def _best(document: Document, task: str, names: tuple[str, ...], key: str) -> float:
    systems = document["tasks"][task]["systems"]
    return max(systems[name][key] for name in names if key in systems.get(name, {}))


def _ratio(task: str, ours: str, peers: tuple[str, ...], key: str) -> Callable[[Document], float]:
    def value(document: Document) -> float:
        mine = tuple(n for n in document["tasks"][task]["systems"] if n.startswith(ours))
        return _best(document, task, mine, key) / _best(document, task, peers, key)

    return value


def _train(task: str, peer: str) -> Callable[[Document], float]:
    return _ratio(task, "ours-bf16", (peer,), "steps_per_second")


def _half_rate(document: Document) -> float:
    rate = document["tasks"]["rate"]["bfloat16_tflops"]
    task = "train-bert-512"
    mine = tuple(n for n in document["tasks"][task]["systems"] if n.startswith("ours-bf16"))
    return _best(document, task, mine, "tflops") / float(rate)


def _vectors(key: str, *names: str) -> Callable[[Document], float]:
    def value(document: Document) -> float:
        found = document["tasks"]["encode-varied"]["vectors"]
        worst = max if key == "max_difference" else min
        return worst(float(found[name][key]) for name in names)

    return value


ENCODE, PER_SECOND = "encode-varied", "sentences_per_second"
# (text, value, whether it must be at least or at most the limit, limit)
Goal = tuple[str, Callable[[Document], float], str, float]
GOALS: list[Goal] = [
    *(
        (
            f"{label}, batch {batch}{kind}: ours / {peer}, bf16",
            _train(task, f"{key}-bf16"),
            ">=",
            by,
        )
        for shape, label, batch, by in (
            ("bert", "BERT-base", 64, 3.0),
            ("bert", "BERT-base", 512, 2.0),
            ("minilm", "MiniLM", 64, 3.0),
            ("minilm", "MiniLM", 512, 3.0),
        )
        for suffix, kind in (("", ""), (_HARD, ", hard negative"))
        for task in (f"train-{shape}-{batch}{suffix}",)
        for peer, key in (("sentence-transformers", "st"), ("original step", "original"))
    ),
    ("BERT-base, batch 512: share of the card's bf16 rate", _half_rate, ">=", 0.35),
    (
        "encoding in half precision: ours / sentence-transformers at its best batch",
        _ratio(ENCODE, "ours-", ("st-fp16-best", "st-bf16-best"), PER_SECOND),
        ">=",
        6.0,
    ),
    (
        "encoding in fp32: ours / sentence-transformers at its best batch",
        _ratio(ENCODE, "ours-fp32", ("st-fp32", "st-fp32-best"), PER_SECOND),
        ">=",
        3.0,
    ),
    (
        "short sentences per second in half precision",
        lambda document: _best(
            document, "encode-short", ("ours-bf16", "ours-fp16"), "sentences_per_second"
        ),
        ">=",
        100_000,
    ),
    (
        "vectors in fp32: largest difference from the CPU",
        _vectors("max_difference", "ours-fp32"),
        "<=",
        1e-5,
    ),
    (
        "vectors in half precision: lowest cosine to fp32",
        _vectors("lowest_cosine", "ours-bf16", "ours-fp16"),
        ">=",
        0.9995,
    ),
    (
        "gradient caching: time over the plain step",
        lambda document: float(document["tasks"]["gradient-cache"]["ratio"]),
        "<=",
        1.45,
    ),
    (
        "InfoNCE 65,536 x 384: time over its matrix products",
        lambda document: float(document["tasks"]["info-nce"]["ratio"]),
        "<=",
        1.5,
    ),
]


def goals(document: Document) -> list[dict[str, Any]]:
    """Return every goal with its value, None if it was not measured, and whether it is reached."""
    found = []
    for text, value_of, sign, limit in GOALS:
        try:
            value = value_of(document)
        except (KeyError, ValueError, ZeroDivisionError):
            found.append({"goal": text, "limit": f"{sign} {limit:g}", "value": None})
            continue
        reached = value >= limit if sign == ">=" else value <= limit
        entry = {"goal": text, "limit": f"{sign} {limit:g}", "value": float(f"{value:.4g}")}
        found.append(entry | {"reached": reached})
    return found


def tables(document: Document) -> str:
    """Return the measurements and the goals as Markdown tables."""
    lines = [document["machine"]["line"], ""]
    tests = document.get("tests")
    if tests:
        lines += [
            f"Tests: {tests['summary']}",
            *(f"- {name}: {why}" for name, why in tests["failures"].items()),
            "",
        ]
    columns = ("per second", "TFLOP/s", "peak GB", "launches", "waits", "copies to host", "idle")
    lines += _row("task", "system", *columns)
    lines += _row(*(["---"] * (2 + len(columns))))
    for task, result in document["tasks"].items():
        for name, one in result.get("systems", {}).items():
            if "not_run" in one:
                lines += _row(task, name, f"not run: {one['not_run'][:60]}", *[""] * 6)
                continue
            keys = ("tflops", "peak_gb", "launches_per_step", "waits_per_step")
            speed = one.get("steps_per_second", one.get("sentences_per_second"))
            shown = [one.get(key) for key in (*keys, "copies_to_host_per_step", "idle_share")]
            lines += _row(task, name, speed, *shown)
        if "systems" not in result:
            lines += _row(task, "ours", _short(result), *[""] * 6)
    if document["goals"]:
        lines += ["", *_row("goal", "limit", "measured", ""), *_row(*["---"] * 4)]
    for goal in document["goals"]:
        word = {True: "reached", False: "MISSED", None: "not measured"}[goal.get("reached")]
        lines += _row(goal["goal"], goal["limit"], goal["value"], word)
    return "\n".join(lines)


def _short(result: dict[str, Any]) -> str:
    if "not_run" in result:
        return f"not run: {result['not_run'][:60]}"
    return ", ".join(
        f"{key} {value}" for key, value in result.items() if not isinstance(value, dict)
    )


def _row(*cells: Any) -> list[str]:
    return ["| " + " | ".join("" if cell is None else str(cell) for cell in cells) + " |"]
