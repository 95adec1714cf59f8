"""Tiny random models of many families, all with the word-level tokenizer of the tiny BERT."""

from __future__ import annotations

import json
import os
import shutil
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from simcse_kit.encoder.encoder import SentenceEncoder

SMALL = {
    "vocab_size": 47,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
    # With the usual 0.02 all random vectors are nearly equal and tests pass for no reason.
    "initializer_range": 0.3,
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("BertConfig", {}),
    "roberta": ("RobertaConfig", {}),
    "xlm-roberta": ("XLMRobertaConfig", {}),
    "distilbert": ("DistilBertConfig", {}),
    "mpnet": ("MPNetConfig", {}),
    "electra": ("ElectraConfig", {"embedding_size": 16}),
    "albert": ("AlbertConfig", {"embedding_size": 16}),
    "modernbert": ("ModernBertConfig", {"cls_token_id": 2, "sep_token_id": 3}),
}

SENTENCES = [
    "a cat sat on the mat .",
    "the dog ran .",
    "a man is playing the guitar in the park , and a woman reads a book .",
    "birds",
    "",
    "not a very big red car near the old house",
    "the dog ran .",
    "music ?",
]


@pytest.fixture(scope="session")
def family(
    tiny_encoder_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Folder of a random three-layer model of a family, as transformers saves it."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            import transformers

            config_class, extra = FAMILIES[name]
            config = getattr(transformers, config_class)(
                **SMALL | {"bos_token_id": 2, "eos_token_id": 3} | extra
            )
            torch.manual_seed(1)
            folder = tmp_path_factory.mktemp(name)
            transformers.AutoModel.from_config(config).save_pretrained(folder)
            _copy_tokenizer(tiny_encoder_dir, folder)
            made[name] = folder
        return made[name]

    return make


@pytest.fixture
def made(tiny_encoder_dir: Path, tmp_path: Path) -> Callable[..., Path]:
    """Folder of a tiny random model of any family of transformers, with the tiny tokenizer."""

    def make(kind: str, **changes: Any) -> Path:
        from tests.encoder.family_models import build

        folder = tmp_path / "model"
        build(kind, **changes).save_pretrained(folder)
        _copy_tokenizer(tiny_encoder_dir, folder)
        return folder

    return make


@pytest.fixture(scope="session")
def simcse_checkpoint(
    tiny_encoder_dir: Path, family: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """A checkpoint as princeton-nlp/SimCSE leaves it: after training, or after its conversion."""

    def make(name: str, *, converted: bool = False, extras: bool = False) -> Path:
        folder = tmp_path_factory.mktemp("unsup-simcse")
        plain = load_file(family(name) / "model.safetensors")
        body = {key: value for key, value in plain.items() if not key.startswith("pooler.")}
        generator = torch.Generator().manual_seed(5)
        weight = torch.randn(32, 32, generator=generator) / 6
        bias = torch.randn(32, generator=generator)
        config = json.loads((family(name) / "config.json").read_text(encoding="utf-8"))
        if converted:
            weights = body | {"pooler.dense.weight": weight, "pooler.dense.bias": bias}
        else:
            weights = {f"{name}.{key}": value for key, value in body.items()}
            weights |= {"mlp.dense.weight": weight, "mlp.dense.bias": bias}
            config["architectures"] = [f"{name.capitalize()}ForCL"]
        if extras:
            weights |= {"lm_head.bias": torch.zeros(47), "lm_head.dense.weight": torch.ones(32, 32)}
        save_file(weights, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        _copy_tokenizer(tiny_encoder_dir, folder)
        return folder

    return make


@pytest.fixture
def copy(tmp_path: Path) -> Callable[[Path], Path]:
    """A copy that a test may damage."""
    return lambda folder: Path(shutil.copytree(folder, tmp_path / "copied", dirs_exist_ok=True))


@pytest.fixture
def no_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where anything is unpickled."""
    import pickle

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a pickle was opened")

    for module, attribute in (
        (torch, "load"),
        (torch.serialization, "load"),
        (pickle, "load"),
        (pickle, "loads"),
        (pickle, "Unpickler"),
    ):
        monkeypatch.setattr(module, attribute, refuse)


@pytest.fixture(scope="module")
def bert(family: Callable[[str], Path]) -> SentenceEncoder:
    """Shared in a module: a test that changes it must put it back."""
    return SentenceEncoder.load(family("bert"))


def _copy_tokenizer(source: Path, folder: Path) -> None:
    for path in source.glob("tokenizer*"):
        shutil.copy(path, folder)


def edit_json(path: Path, **changes: Any) -> None:
    """Set keys of a JSON file; None removes a key."""
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    content = {k: v for k, v in (content | changes).items() if v is not None}
    path.write_text(json.dumps(content), encoding="utf-8")


def naive(folder: Path, pooling: str, texts: list[str], max_length: int = 32) -> torch.Tensor:
    """One sentence at a time with AutoModel and AutoTokenizer, pooled by hand."""
    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = []
    for text in texts:
        ids = tokenizer(text, truncation=True, max_length=max_length, return_tensors="pt")
        with torch.no_grad():
            out = model(
                input_ids=ids["input_ids"],
                attention_mask=ids["attention_mask"],
                output_hidden_states=True,
            )
        tokens = out.last_hidden_state[0]
        states = [state[0] for state in out.hidden_states]
        rows.append(
            {
                "cls_before_pooler": lambda t=tokens: t[0],
                "mean": lambda t=tokens: t.mean(0),
                "max": lambda t=tokens: t.max(0).values,
                "last_token": lambda t=tokens: t[-1],
                "mean_sqrt_len": lambda t=tokens: t.sum(0) / len(t) ** 0.5,
                "weighted_mean": lambda t=tokens: (
                    sum((n + 1) * row for n, row in enumerate(t)) / (len(t) * (len(t) + 1) / 2)
                ),
                "max+mean": lambda t=tokens: torch.cat([t.max(0).values, t.mean(0)]),
                "cls_before_pooler+last_token": lambda t=tokens: torch.cat([t[0], t[-1]]),
                "first_last_mean": lambda s=states: (s[1].mean(0) + s[-1].mean(0)) / 2,
                "last_two_mean": lambda s=states: (s[-2].mean(0) + s[-1].mean(0)) / 2,
                "pooler": lambda o=out: o.pooler_output[0],
                "cls": lambda o=out: o.pooler_output[0],
            }[pooling]()
        )
    return torch.stack(rows)


def in_fork(work: Callable[[], object]) -> None:
    """Run ``work`` in a forked child, with a limit in time."""
    child = os.fork()
    if not child:
        code = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process
            signal.alarm(30)
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert not os.WIFSIGNALED(status), "the forked process hangs"
    assert os.WEXITSTATUS(status) == 0, "the forked process failed"
