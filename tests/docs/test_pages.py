"""Every command and Python block of the README and of docs/ runs, page by page and in order.

Training is shortened (:data:`SHORT`, :func:`_shortened`), and so is the text (:data:`LINES`): the
tests check that the commands work, not how well they train.
"""

from __future__ import annotations

import logging
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from simcse_kit.cli.main import main
from simcse_kit.data.augment import AUGMENTATIONS
from simcse_kit.evaluation.tasks import TASK_KINDS
from simcse_kit.methods import METHODS
from tests.docs.blocks import PAGES, REASONS, REPOSITORY, RUN, SHOWN, Block, blocks_of
from tests.docs.servers import PageServer

LINES = 70
# These come after the options of the page, and the last one wins.
SHORT = {
    "train": ["--max-steps", "2", "--batch-size", "4"],
    "verify-resume": ["--steps", "3", "--kills", "1", "--set", "training.batch_size=8"],
    "compare-methods": ["--steps", "2", "--seeds", "1", "--batch-size", "8"],
    "compare": ["--resamples", "200"],
    "eval": ["--resamples", "200"],
}
# Pages whose runs draw their curves; the others leave that out, which takes most of a short run.
WITH_CURVES = {"docs/index.md"}
BLOCKS = [block for page in PAGES for block in blocks_of(page)]


@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_a_page_has_a_known_language_and_mark(page: str) -> None:
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    blocks = blocks_of(page)
    assert len(blocks) == len(re.findall(r"^ *```", text, re.M)) / 2, "a block was not recognised"
    for block in blocks:
        where = f"{page}:{block.line}"
        assert block.language in RUN | SHOWN, f"{where}: language {block.language!r}"
        if block.mark.startswith("not run"):
            assert block.mark.removeprefix("not run: ") in REASONS, f"{where}: {block.mark}"


def test_first_screen_of_the_readme_and_contributing_stay_short() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8").split("\n")
    assert readme.index("## Results") < 60
    assert len((REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8").split("\n")) < 60


def test_links_of_the_readme_and_contributing_lead_to_files() -> None:
    for page in ("README.md", "CONTRIBUTING.md"):
        for target in re.findall(r"\]\(([^)#]+)", (REPOSITORY / page).read_text(encoding="utf-8")):
            assert target.startswith("https://") or (REPOSITORY / target).exists(), target


def test_marked_blocks_contain_real_commands_and_python() -> None:
    """A block that is not run is at least parsed: Python compiles, options exist."""
    import typer.main

    from simcse_kit.cli.main import app

    group = typer.main.get_command(app)
    checked = 0
    for block in BLOCKS:
        if block.language == "python":
            compile(block.code, f"{block.page}:{block.line}", "exec")
        if block.language != "sh" or not block.mark:
            continue
        for words in block.commands():
            if "simcse" in words[0]:
                words = words[1:]
            elif "simcse_kit" in words:
                words = words[words.index("simcse_kit") + 1 :]
            else:
                continue
            command = group
            while words and words[0] in getattr(command, "commands", {}):
                command = command.commands[words.pop(0)]
            known = {name for item in command.params for name in item.opts}
            given = {word for word in words if word.startswith("--")}
            assert given <= known, f"{block.page}:{block.line}: {given - known}"
            checked += 1
    assert checked


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sample data, shortened, and the encoder that the pages call my-encoder."""
    folder = tmp_path_factory.mktemp("pages")
    shutil.copytree(REPOSITORY / "data", folder / "data")
    for name in ("sentences.txt", "nli.csv", "sts.tsv"):
        path = folder / "data" / name
        header, *lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        path.write_text("".join([header, *lines[:: len(lines) // LINES]]), encoding="utf-8")
    from simcse_kit.encoder.encoder import SentenceEncoder

    SentenceEncoder.load("mini").save(folder / "my-encoder")
    return folder


@pytest.fixture
def workshop(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of that folder as the current one; modules that the page writes can be imported.

    What a page registers is forgotten afterwards.
    """
    folder = tmp_path / "workshop"
    shutil.copytree(trained, folder)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("SIMCSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("accelerate.utils.memory.clear_device_cache", lambda *_, **__: None)
    for registry in (METHODS, AUGMENTATIONS, TASK_KINDS):
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    package = logging.getLogger("simcse_kit")
    kept = package.handlers[:], package.level, package.propagate
    modules = set(sys.modules)
    yield folder
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
            del sys.modules[name]
    package.handlers[:], package.level, package.propagate = kept


@pytest.fixture
def server() -> Iterator[PageServer]:
    server = PageServer()
    yield server
    server.stop()


@pytest.mark.long
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if any(block.language in RUN for block in blocks_of(page))],
)
def test_commands_and_code_of_a_page_run(
    page: str,
    workshop: Path,
    server: PageServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _run_page(page, workshop, server, monkeypatch, capsys, slow=False)


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted({block.page for block in BLOCKS if block.mark == "slow"}))
def test_slow_commands_of_a_page_run(
    page: str,
    workshop: Path,
    server: PageServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _run_page(page, workshop, server, monkeypatch, capsys, slow=True)


def _run_page(
    page: str,
    folder: Path,
    server: PageServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    slow: bool,
) -> None:
    if page not in WITH_CURVES:
        monkeypatch.setattr(
            "simcse_kit.training.save_results.write_training_report", lambda *_, **__: None
        )
    names: dict[str, object] = {"__name__": "__main__"}
    blocks = blocks_of(page)
    if re.search(r"--output my-encoder$", "".join(block.code for block in blocks), re.M):
        shutil.rmtree(folder / "my-encoder")  # the page trains it
    for block in blocks:
        if block.title:
            (folder / block.title).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.title).write_text(block.code, encoding="utf-8")
        elif block.mark.startswith("not run") or (block.mark == "slow" and not slow):
            continue
        elif block.language == "python":
            code = compile(
                _shortened(server.located(block.code)),
                f"{page}:{block.line}",
                "exec",
                dont_inherit=True,
            )
            exec(code, names)
        elif block.language == "sh":
            for words in block.commands():
                if words[:2] == ["simcse", "serve"]:
                    server.start(words)
                elif words[0] == "curl":
                    server.curl(words)
                else:
                    _run_command(block, words, monkeypatch, capsys)


def _run_command(
    block: Block,
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert words[0] == "simcse", f"{block.page}:{block.line}: only simcse and curl are run"
    argv = [*words, *SHORT.get(words[1], [])]
    monkeypatch.setattr(sys, "argv", argv)
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main()
    assert not caught.value.code, f"{block.page}:{block.line}: {argv}\n{capsys.readouterr().err}"


def _shortened(code: str) -> str:
    """Return the code with fewer and smaller training steps."""
    code = re.sub(r"\bmax_steps=\d+", "max_steps=2", code)
    return re.sub(r"\bbatch_size=\d+", "batch_size=4", code)
