"""Where progress bars are shown."""

from __future__ import annotations

import io
import sys
import types
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import simcse_kit
from simcse_kit.utils import progress
from simcse_kit.utils.progress import bar_kind, in_notebook, progress_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def kernel(monkeypatch: pytest.MonkeyPatch, config: dict[str, Any] | None) -> None:
    """Make it look like IPython with this configuration; None for IPython without a shell."""
    shell = None if config is None else types.SimpleNamespace(config=config)
    module = types.SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", module)


@pytest.mark.parametrize(
    ("terminal", "config", "widgets", "expected"),
    [
        (True, None, False, "text"),
        (False, None, False, None),
        (False, {"TerminalIPythonApp": {}}, True, None),
        (False, {"IPKernelApp": {}}, False, "text"),
        (False, {"IPKernelApp": {}}, True, "widget"),
        (True, {"IPKernelApp": {}}, True, "text"),
    ],
)
def test_kinds(
    terminal: bool,
    config: dict[str, Any] | None,
    widgets: bool,
    expected: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal() if terminal else io.StringIO())
    monkeypatch.setattr(progress, "find_spec", lambda _: object() if widgets else None)
    kernel(monkeypatch, config)
    assert bar_kind() == expected


def test_without_a_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)  # as in a program without a console
    assert bar_kind() is None


def test_drawn_on_a_terminal_and_in_a_notebook_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "find_spec", lambda _: None)

    def drawn(stream: io.StringIO, **options: Any) -> str:
        monkeypatch.setattr(sys, "stderr", stream)
        with progress_bar(2, desc="work", **options) as bar:
            bar.update(2)
        return stream.getvalue()

    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert drawn(io.StringIO()) == ""
    assert "work: 100%|" in drawn(Terminal())
    assert drawn(Terminal(), shown=False) == ""
    kernel(monkeypatch, {"IPKernelApp": {}})
    assert in_notebook()
    assert "work: 100%|" in drawn(io.StringIO())


def test_every_bar_comes_from_here() -> None:
    root = Path(simcse_kit.__file__).parent
    users = [path for path in root.rglob("*.py") if "import tqdm" in path.read_text("utf-8")]
    assert users == [root / "utils" / "progress.py"]


NOTEBOOK = """
import time
from simcse_kit import SentenceEncoder

def texts():  # for longer than the two seconds after which a bar appears
    for number in range(40):
        time.sleep(0.1)
        yield f"sentence {number}"

encoder = SentenceEncoder.load("mini")
for vectors in encoder.encode_stream(texts(), chunk=2, progress=True):
    pass
"""


@pytest.mark.slow
@pytest.mark.skipif(
    find_spec("nbclient") is None or find_spec("ipykernel") is None,
    reason="nbclient or ipykernel is not installed",
)
@pytest.mark.filterwarnings("ignore")  # those of Jupyter's own packages
def test_in_a_kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import nbclient
    import nbformat

    monkeypatch.setenv("PYTHONPATH", ":".join(filter(None, sys.path)))
    cells = [nbformat.v4.new_code_cell(NOTEBOOK)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    client = nbclient.NotebookClient(
        notebook, timeout=280, resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
    outputs = notebook.cells[0].outputs
    shown = "".join(str(output.get("text", "")) + str(output.get("data", "")) for output in outputs)
    assert "encode:" in shown
