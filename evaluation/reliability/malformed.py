"""Every malformed file and model folder of the tests, and what the command says of it.

    python evaluation/reliability/malformed.py > evaluation/reliability/malformed.md

The command runs inside this process; the tests run the same cases and check more (that nothing is
written, that no code runs).
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from simcse_kit.cli.main import main as simcse  # noqa: E402
from tests import hostile_files, hostile_models  # noqa: E402
from tests.small_data import write_tiny_encoder  # noqa: E402


def run(*arguments: object) -> tuple[int, str]:
    """Exit code and what was said on stderr."""
    sys.argv = ["simcse", "-q", *map(str, arguments)]
    said = io.StringIO()
    code = 0
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            simcse()
        except SystemExit as end:
            code = int(end.code or 0)
    return code, said.getvalue()


def row(name: str, code: int, said: str, place: Path) -> str:
    text = said.strip().removeprefix("simcse: error: ").replace(f"{place}/", "")
    shown = " ".join(text.replace("|", "\\|").replace("`", "'").split())
    return f"| {name} | {code} | {shown[:240] if code else 'read'} |"


def main() -> None:
    counts = {0: 0, 2: 0}
    with TemporaryDirectory() as top:
        root = Path(top).resolve()
        os.environ["SIMCSE_CACHE"] = str(root / "cache")
        tiny = write_tiny_encoder(root / "tiny")
        print("# Malformed input: exit code and the one line\n\n## Files\n")
        print("| file | code | message |\n|---|---|---|")
        for name, case in hostile_files.CASES.items():
            with TemporaryDirectory(dir=root) as place:
                path = case.write(Path(place))
                options = ["--model", tiny, "--batch-size", "4", "--max-steps", "1", *case.options]
                code, said = run("train", path, *options, "--output", Path(place, "out"))
                assert not code or said.count("\n") == 1, said
                counts[code] += 1
                print(row(name, code, said, Path(place)), flush=True)
        print("\n## Model folders\n\n| folder | code | message |\n|---|---|---|")
        text = root / "a.txt"
        text.write_text("a cat\na dog\n")
        for name, model in hostile_models.CASES.items():
            with TemporaryDirectory(dir=root) as place:
                folder = Path(place, "model")
                shutil.copytree(tiny, folder)
                model.change(folder)
                code, said = run("encode", folder, text, "--output", Path(place, "v.npy"))
                assert not Path(place, hostile_models.MARK).exists()
                assert said.count("\n") == 1, said
                counts[code] += 1
                print(row(name, code, said, Path(place)), flush=True)
    print(f"\n{counts[2]} refused with exit code 2, {counts[0]} odd but good and read.")


if __name__ == "__main__":
    main()
