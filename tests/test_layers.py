"""Import rules between packages, and the cost of starting the program."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import simcse_kit

ROOT = Path(simcse_kit.__file__).parent
FILES = {
    path.relative_to(ROOT).with_suffix("").as_posix(): path.read_text(encoding="utf-8")
    for path in sorted(ROOT.rglob("*.py"))
}
# A part imports itself and the parts before it; the parts on one line do not know each other.
LAYERS = "errors|registry|utils|config|config_files|losses|metrics|encoder data".split("|")
LAYERS += "methods bulk integrations|evaluation|training search cluster|serve|cli".split("|")
RANK = {part: rank for rank, layer in enumerate(LAYERS) for part in layer.split()}
# One file a paper, one file a command: they know only these.
SHARED = {"methods": ["common", "__init__"], "cli": ["__init__", "options", "results", "streams"]}
TABLES = ["methods/__init__", "cli/main"]


def imported(source: str) -> set[str]:
    """What is imported, lazily and for typing too; ``from a import b`` gives ``a.b``."""
    nodes = list(ast.walk(ast.parse(source)))
    plain = {alias.name for n in nodes if isinstance(n, ast.Import) for alias in n.names}
    froms = [n for n in nodes if isinstance(n, ast.ImportFrom)]
    used = {f"transformers.{n.attr}" for n in nodes if isinstance(n, ast.Attribute)}
    named = {f"{'.' * n.level}{n.module}.{alias.name}" for n in froms for alias in n.names}
    return plain | named | {name for name in used if name.endswith(".Trainer") or "AutoM" in name}


def allowed(name: str, target: str) -> bool:
    """Whether the module ``name``, such as ``data/collate``, may import ``target``."""
    part, _, file = name.partition("/")
    package, other, *rest = [*target.split("."), ""]
    if package == "transformers" and (other == "Trainer" or other.startswith("AutoModel")):
        return name == "training/trainer" if other == "Trainer" else part == "encoder"
    if package != "simcse_kit" or other not in RANK or part not in RANK:
        return package != ""  # other packages, and what is above all layers; nothing relative
    if other == part:
        return rest[0] in ["", file, *SHARED.get(part, rest)] or name in TABLES
    return RANK[other] < RANK[part]


@pytest.mark.parametrize("name", FILES)
def test_imports_only_point_down(name: str) -> None:
    assert name.partition("/")[0] in {*RANK, "__init__", "__main__"}, "a part without a layer"
    assert [target for target in imported(FILES[name]) if not allowed(name, target)] == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("config", "from simcse_kit.methods import METHODS"),
        ("data/collate", "def f():\n    from simcse_kit.encoder.encoder import SentenceEncoder"),
        ("encoder/encoder", "import simcse_kit.data.lines"),
        ("evaluation/dev_set", "from simcse_kit.training import run"),
        ("methods/another", "from simcse_kit.methods.simcse import SimCSE"),
        ("methods/another", "from simcse_kit.methods import simcse"),
        ("cli/train", "from simcse_kit.cli import info"),
        ("training/run", "from simcse_kit.cli.main import app"),
        ("training/run", "import transformers\nx = transformers.Trainer"),
        ("methods/simcse", "from transformers import AutoModelForMaskedLM"),
        ("data/lines", "from .rows import x"),
    ],
)
def test_the_rules_bite(name: str, source: str) -> None:
    assert not all(allowed(name, target) for target in imported(source))


def test_only_the_tables_module_aligns_columns() -> None:
    assert [name for name, source in FILES.items() if ".rjust(" in source] == ["utils/tables"]


def modules_imported_by(source: str) -> set[str]:
    """Our modules that a module imports, lazily and for typing too."""
    names = set()
    for target in imported(source):
        path = target.removeprefix("simcse_kit.").replace(".", "/")
        package = path.rpartition("/")[0]
        # `from package import module` needs the module; `from package import name` its __init__.
        found = {path, f"{path}/__init__", package} & FILES.keys()
        names |= found or ({f"{package}/__init__"} & FILES.keys())
    return names


def cycle_of(graph: dict[str, set[str]]) -> list[str]:
    """The modules that cannot be put into an order in which each imports only earlier ones."""
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_module_imports_itself_through_others() -> None:
    assert cycle_of({name: modules_imported_by(source) for name, source in FILES.items()}) == []


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("encoder/")])
def test_only_the_user_api_and_export_name_the_sentence_encoder(name: str) -> None:
    """All other modules of encoder/ work on an EncoderModel, which the user API extends."""
    names = {
        node.id if isinstance(node, ast.Name) else getattr(node, "name", "")
        for node in ast.walk(ast.parse(FILES[name]))
        if isinstance(node, ast.Name | ast.alias | ast.ClassDef)
    }
    allowed_here = name in ("encoder/encoder", "encoder/export/export")
    assert allowed_here or "SentenceEncoder" not in names


def test_cycles_are_found() -> None:
    assert cycle_of({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert set(cycle_of({"a": {"b"}, "b": {"c"}, "c": {"a"}})) == {"a", "b", "c"}


# Attention and its kernels take one argument for each tensor.
MANY_PARAMETERS = {
    "encoder/packing/attention": {"block_attention", "forward"},
}


@pytest.mark.parametrize("name", FILES)
def test_modules_and_signatures_are_short(name: str) -> None:
    assert FILES[name].count("\n") <= 320
    if name.startswith("cli/"):  # options of the commands
        return
    long = set()
    for node in ast.walk(ast.parse(FILES[name])):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            args = [arg.arg for arg in (*node.args.posonlyargs, *node.args.args)]
            count = len(args) + len(node.args.kwonlyargs) - (args[:1] in (["self"], ["cls"]))
            long |= {node.name} if count > 7 else set()
    assert long == MANY_PARAMETERS.get(name, set())


def test_a_start_is_light() -> None:
    probe = (
        "import sys, simcse_kit; from simcse_kit.cli.main import main\n"
        "sys.argv = ['simcse', '--help']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print({'torch', 'transformers', 'datasets', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert done.stderr == ""
    assert "Usage: simcse" in done.stdout
    assert done.stdout.endswith("set()\n")


def test_a_start_imports_few_modules() -> None:
    """Time is that of imports: 130 modules take about 0.2 s, and a busy machine cannot say so."""
    probe = (
        "import sys; bare = set(sys.modules)\n"
        "import simcse_kit; package = set(sys.modules) - bare\n"
        "from simcse_kit.cli.main import main\n"
        "sys.argv = ['simcse', '--help']\n"
        "try: main()\n"
        "except SystemExit: print('MODULES', len(package), len(set(sys.modules) - bare))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    package, whole = map(int, done.stdout.rpartition("MODULES ")[2].split())
    assert package <= 20
    assert whole <= 170
