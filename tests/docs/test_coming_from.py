"""Both sides of every row of the page for users of sentence-transformers run and agree."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from simcse_kit.cli.main import main
from tests.docs.blocks import REPOSITORY, blocks_of
from tests.docs.test_pages import _shortened, trained, workshop  # noqa: F401 - fixtures
from tests.fake_hub import DEPRECATED, TOKEN, FakeHub, reachable_hub

PAGE = "docs/coming-from-sentence-transformers.md"
ROWS = re.findall(r"^\| `(.*)` \| `(.*)` \|$", (REPOSITORY / PAGE).read_text("utf-8"), re.M)
SETUP = _shortened(blocks_of(PAGE)[0].code).replace('"max_steps": 20', '"max_steps": 1')

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings(DEPRECATED),
    # What sentence-transformers deprecates is still what its users know.
    pytest.mark.filterwarnings(
        "ignore:The MultipleNegativesSymmetricRankingLoss:DeprecationWarning"
    ),
    pytest.mark.filterwarnings("ignore:'pin_memory':UserWarning"),
]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with reachable_hub(monkeypatch) as hub:
        yield hub


def result_of(code: str, names: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The value of an expression; None for statements and commands."""
    if code.startswith("simcse "):
        monkeypatch.setattr(sys, "argv", shlex.split(code))
        with pytest.raises(SystemExit) as caught:
            main()
        assert not caught.value.code
        return None
    try:
        expression = compile(code, PAGE, "eval")
    except SyntaxError:
        exec(compile(code, PAGE, "exec"), names)
        return None
    return eval(expression, names)


def comparable(value: Any) -> bool:
    return isinstance(value, int | float | str | np.ndarray | np.generic | torch.Tensor)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [pytest.param(*row, id=row[1]) for row in ROWS],
)
def test_both_sides_of_a_row_run_and_agree(
    theirs: str,
    ours: str,
    hub: FakeHub,
    workshop: Path,  # noqa: F811 - the imported fixture
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "simcse_kit.training.save_results.write_training_report", lambda *_, **__: None
    )
    for block in blocks_of(PAGE):
        if block.title:
            (workshop / block.title).parent.mkdir(parents=True, exist_ok=True)
            (workshop / block.title).write_text(block.code, encoding="utf-8")
    names: dict[str, Any] = {}
    exec(SETUP, names)
    expected = result_of(_shortened(theirs), names, monkeypatch)
    found = result_of(_shortened(ours), names, monkeypatch)
    assert comparable(expected) == comparable(found) or "train" in ours or "push" in ours
    if comparable(expected) and comparable(found) and "push" not in ours:
        if isinstance(expected, str):
            assert found == expected
        else:
            # A number at the border of two steps of int8 may fall into either.
            steps = getattr(expected, "dtype", None) == np.int8
            np.testing.assert_allclose(found, expected, atol=1 if steps else 1e-5)
    assert list(hub.visibility.values()) == ["private"] * 2 * ("push" in ours)


def test_every_row_of_the_page_is_read() -> None:
    text = (REPOSITORY / PAGE).read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    assert len(lines) == len(ROWS) > 20
