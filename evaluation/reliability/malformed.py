"""Print the exit code and message for every malformed file and model folder of the tests.

    python evaluation/reliability/malformed.py > evaluation/reliability/malformed.md

The command runs inside this process. The tests run the same cases and check more: that nothing is
written and that no code runs.
"""

from __future__ import annotations

import argparse
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
    """Run ``simcse``; return the exit code, and the text on stderr."""
    sys.argv = ["simcse", "-q", *map(str, arguments)]
    stderr = io.StringIO()
    code = 0
    with contextlib.redirect_stderr(stderr), contextlib.redirect_stdout(io.StringIO()):
        try:
            simcse()
        except SystemExit as end:
            code = int(end.code or 0)
    return code, stderr.getvalue()


def row(name: str, code: int, message: str, place: Path) -> str:
    text = message.strip().removeprefix("simcse: error: ").replace(f"{place}/", "")
    shown = " ".join(text.replace("|", "\\|").replace("`", "'").split())
    return f"| {name} | {code} | {shown[:240] if code else 'read'} |"


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
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
                code, message = run("train", path, *options, "--output", Path(place, "out"))
                assert not code or message.count("\n") == 1, message
                counts[code] += 1
                print(row(name, code, message, Path(place)), flush=True)
        print("\n## Model folders\n\n| folder | code | message |\n|---|---|---|")
        text = root / "a.txt"
        text.write_text("a cat\na dog\n")
        for name, model in hostile_models.CASES.items():
            with TemporaryDirectory(dir=root) as place:
                folder = Path(place, "model")
                shutil.copytree(tiny, folder)
                model.change(folder)
                code, message = run("encode", folder, text, "--output", Path(place, "v.npy"))
                assert not Path(place, hostile_models.MARK).exists()
                assert message.count("\n") == 1, message
                counts[code] += 1
                print(row(name, code, message, Path(place)), flush=True)
    print(f"\n{counts[2]} refused with exit code 2, {counts[0]} unusual but valid, and read.")


if __name__ == "__main__":
    main()
