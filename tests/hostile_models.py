"""Malformed model folders, and the error that each must give.

A case changes a good folder. If opening the folder runs code or touches files outside of it, the
file ``MARK`` next to it appears.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

__all__ = ["CASES", "MARK", "Case"]

MARK = "ran.txt"
"""In the folder above the model: made by code that must not run."""

Change = Callable[[Path], object]


class Case:
    """One change of a good folder, and words of the error."""

    def __init__(self, change: Change, *said: str) -> None:
        self.change = change
        self.said = said


def settings(name: str, **values: Any) -> Change:
    def change(folder: Path) -> None:
        path = folder / name
        before = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(before | values))

    return change


def text(name: str, content: str | bytes) -> Change:
    def change(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return change


def gone(*names: str) -> Change:
    def change(folder: Path) -> None:
        for name in names:
            (folder / name).unlink(missing_ok=True)

    return change


def both(*changes: Change) -> Change:
    def change(folder: Path) -> None:
        for each in changes:
            each(folder)

    return change


def weights(edit: Callable[[dict[str, torch.Tensor]], object], name: str = "") -> Change:
    def change(folder: Path) -> None:
        path = folder / name / "model.safetensors"
        tensors = load_file(path)
        edit(tensors)
        save_file(tensors, path, metadata={"format": "pt"})

    return change


def cut(name: str, share: float) -> Change:
    def change(folder: Path) -> None:
        path = folder / name
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])

    return change


def first(tensors: dict[str, torch.Tensor], part: str) -> str:
    return next(name for name in tensors if part in name)


def narrowed(tensors: dict[str, torch.Tensor]) -> None:
    name = first(tensors, "query.weight")
    tensors[name] = tensors[name][:, :-1].contiguous()


def not_numbers(tensors: dict[str, torch.Tensor]) -> None:
    tensors[first(tensors, "query.weight")][0, 0] = torch.nan


def infinite(tensors: dict[str, torch.Tensor]) -> None:
    tensors[first(tensors, "word_embeddings")][5, 0] = torch.inf


def without(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[first(tensors, "key.weight")]


def shards(mapping: Callable[[str], Any]) -> Change:
    """An index in place of the weights, whose shards are named by a function."""

    def change(folder: Path) -> None:
        names = list(load_file(folder / "model.safetensors"))
        (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
        index = {"metadata": {}, "weight_map": {name: mapping(name) for name in names}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return change


def outside(folder: Path) -> None:
    """Good weights, one folder up."""
    shards(lambda _: "../stolen.safetensors")(folder)
    shutil.move(folder / "model-00001-of-00001.safetensors", folder.parent / "stolen.safetensors")


class Runs:
    """Unpickled, it makes a file."""

    def __init__(self, place: Path):
        self.place = place

    def __reduce__(self) -> Any:
        return Path.touch, (self.place,)


def pickled(name: str) -> Change:
    def change(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / name).write_bytes(pickle.dumps(Runs(folder.parent / MARK)))

    return change


def pickled_shard(folder: Path) -> None:
    shards(lambda _: "weights.bin")(folder)
    (folder / "model-00001-of-00001.safetensors").unlink()
    (folder / "weights.bin").write_bytes(pickle.dumps(Runs(folder.parent / MARK)))


def pickle_as_safetensors(folder: Path) -> None:
    content = pickle.dumps(Runs(folder.parent / MARK))
    (folder / "model.safetensors").write_bytes(content)


def own_code(name: str, key: str) -> Change:
    def change(folder: Path) -> None:
        code = f"from pathlib import Path\nPath({str(folder.parent / MARK)!r}).touch()\n"
        (folder / "theirs.py").write_text(code + "class Theirs:\n    pass\n")
        settings(name, auto_map={key: "theirs.Theirs"})(folder)

    return change


def unknown_kind_with_code(folder: Path) -> None:
    own_code("config.json", "AutoModel")(folder)
    settings("config.json", model_type="theirs")(folder)


def modules(*entries: dict[str, Any]) -> Change:
    return text("modules.json", json.dumps(list(entries)))


def module(kind: str, path: str = "") -> dict[str, Any]:
    return {"idx": 0, "name": "0", "path": path, "type": f"sentence_transformers.models.{kind}"}


def stages(dense: dict[str, Any], keep: bool = True) -> Change:
    """A good recipe with a Dense stage, then one change of its configuration."""

    def change(folder: Path) -> None:
        modules(module("Transformer"), module("Pooling", "1"), module("Dense", "2"))(folder)
        text("1/config.json", '{"pooling_mode_mean_tokens": true}')(folder)
        good = {"in_features": 32, "out_features": 32, "bias": True}
        activation = {"activation_function": "torch.nn.modules.activation.Tanh"}
        text("2/config.json", json.dumps(good | activation | dense))(folder)
        if keep:
            tensors = {"linear.weight": torch.eye(32), "linear.bias": torch.zeros(32)}
            save_file(tensors, folder / "2" / "model.safetensors")

    return change


def circle(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to(folder / "config.json")


def pipe(name: str) -> Change:
    return both(gone(name), lambda folder: os.mkfifo(folder / name))


HUGE_HEADER = (2**62).to_bytes(8, "little") + b"{}"

CASES: dict[str, Case] = {
    # ---- the configuration
    "an empty folder": Case(lambda f: [p.unlink() for p in f.iterdir()], "has no config.json"),
    "configuration gone": Case(gone("config.json"), "has no config.json"),
    "configuration is no JSON": Case(text("config.json", "{"), "config.json cannot be read"),
    "configuration is not UTF-8": Case(text("config.json", b"\xff\xfe{}"), "config.json"),
    "configuration is a list": Case(text("config.json", "[]"), "holds a list, not a JSON object"),
    "configuration a million deep": Case(
        text("config.json", '{"a":' * 300_000 + "1" + "}" * 300_000), "config.json cannot be read"
    ),
    "configuration is a link to itself": Case(circle, "config.json"),
    "configuration is a pipe": Case(pipe("config.json"), "config.json is not a regular file"),
    "kind of model unknown": Case(settings("config.json", model_type="bort"), "bort"),
    "kind of model gone": Case(text("config.json", "{}"), "cannot be opened as a model"),
    "kind of model is a number": Case(settings("config.json", model_type=5), "{folder}"),
    "kind of model is of pictures": Case(settings("config.json", model_type="vit"), "{folder}"),
    "width is not that of the weights": Case(
        settings("config.json", hidden_size=64), "{folder} cannot be opened as a model"
    ),
    "width is a text": Case(settings("config.json", hidden_size="wide"), "{folder}"),
    "width below 0": Case(settings("config.json", hidden_size=-32), "{folder}"),
    "no attention head": Case(settings("config.json", num_attention_heads=0), "{folder}"),
    "more layers than weights": Case(
        settings("config.json", num_hidden_layers=3), "lacks", "weights of its architecture"
    ),
    "more words than weights": Case(
        settings("config.json", vocab_size=10**6), "{folder} cannot be opened as a model"
    ),
    "an activation that is code": Case(
        settings("config.json", hidden_act="__import__('os').system('true')"), "{folder}"
    ),
    # ---- the weights
    "weights gone": Case(gone("model.safetensors"), "has no model.safetensors"),
    "weights empty": Case(text("model.safetensors", ""), "{folder}"),
    "weights cut short": Case(cut("model.safetensors", 0.7), "{folder}"),
    "weights with a header of exabytes": Case(text("model.safetensors", HUGE_HEADER), "{folder}"),
    "weights that are text": Case(text("model.safetensors", "weights " * 99), "{folder}"),
    "weights are a pipe": Case(pipe("model.safetensors"), "is not a regular file"),
    "a weight gone": Case(weights(without), "lacks 1 weights of its architecture"),
    "a weight of another shape": Case(weights(narrowed), "cannot be opened as a model"),
    "a weight that is NaN": Case(weights(not_numbers), "holds NaN or infinity", "query.weight"),
    "a weight that is infinite": Case(
        weights(infinite), "holds NaN or infinity", "word_embeddings"
    ),
    "a shard gone": Case(shards(lambda _: "model-00002-of-00002.safetensors"), "{folder}"),
    "shards outside the folder": Case(outside, "is not a safetensors file of this folder"),
    "shards at an absolute place": Case(
        shards(lambda _: "/etc/passwd.safetensors"), "is not a safetensors file of this folder"
    ),
    "shards that are numbers": Case(shards(lambda _: 5), "5 is not a safetensors file"),
    "an index without a map": Case(
        both(shards(lambda _: "x"), text("model.safetensors.index.json", '{"weight_map": [1]}')),
        "model.safetensors.index.json",
    ),
    "an index that is no JSON": Case(
        both(shards(lambda _: "x"), text("model.safetensors.index.json", "{")),
        "model.safetensors.index.json cannot be read",
    ),
    "pickled weights": Case(pickled("pytorch_model.bin"), "holds pickled weights"),
    "pickled weights under another name": Case(pickled("model.pt"), "has no model.safetensors"),
    "pickled shards": Case(pickled_shard, "'weights.bin' is not a safetensors file of this folder"),
    "a pickle called safetensors": Case(pickle_as_safetensors, "{folder}"),
    "an adapter": Case(text("adapter_config.json", "{}"), "peft_type is None"),
    # ---- code
    "code for the model": Case(own_code("config.json", "AutoModel"), "own Python code"),
    "code for the configuration": Case(own_code("config.json", "AutoConfig"), "own Python code"),
    "code for the tokenizer": Case(
        own_code("tokenizer_config.json", "AutoTokenizer"), "own Python code"
    ),
    "code for a kind of model of its own": Case(unknown_kind_with_code, "own Python code"),
    # ---- the tokenizer
    "tokenizer gone": Case(
        gone("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"), "tokenizer"
    ),
    "tokenizer is no JSON": Case(text("tokenizer.json", "{"), "the tokenizer cannot be opened"),
    "tokenizer cut short": Case(cut("tokenizer.json", 0.5), "the tokenizer cannot be opened"),
    "tokenizer knows more words": Case(
        weights(lambda t: t.update({k: v[:20].contiguous() for k, v in t.items() if "word_" in k})),
        "{folder}",
    ),
    # ---- the recipe
    "recipe is no JSON": Case(text("modules.json", "{"), "modules.json cannot be read"),
    "recipe is no list": Case(text("modules.json", '{"a": 1}'), "is not a list of modules"),
    "recipe of numbers": Case(text("modules.json", "[1]"), "is not a list of modules"),
    "recipe that leads out": Case(
        modules(module("Transformer", "../elsewhere")), "'../elsewhere' leads out of the folder"
    ),
    "recipe that leads out in the middle": Case(
        modules(module("Transformer", "a/../../b")), "leads out of the folder"
    ),
    "recipe at an absolute place": Case(
        modules(module("Transformer", "/etc")), "'/etc' leads out of the folder"
    ),
    "recipe with a module of its own": Case(
        modules({"idx": 0, "name": "0", "path": "", "type": "theirs.Module"}), "is not supported"
    ),
    "recipe without pooling": Case(modules(module("Transformer")), "names no Pooling module"),
    "recipe in the wrong order": Case(
        both(text("1/config.json", "{}"), modules(module("Dense", "1"), module("Transformer"))),
        "{folder}",
    ),
    "pooling unknown": Case(
        both(
            modules(module("Transformer"), module("Pooling", "1")),
            text("1/config.json", '{"pooling_mode": "median"}'),
        ),
        "pooling 'median' is not supported",
    ),
    "pooling folder gone": Case(
        modules(module("Transformer"), module("Pooling", "1")), "has no config.json"
    ),
    "length that is a text": Case(
        both(stages({}), text("sentence_bert_config.json", '{"max_seq_length": "long"}')),
        "max_length is 'long'",
    ),
    "length beyond the positions": Case(
        both(stages({}), text("sentence_bert_config.json", '{"max_seq_length": 9999}')),
        "max_length is 9999",
    ),
    "stage without weights": Case(stages({}, keep=False), "lacks the weights of its Dense stage"),
    "stage with code for an activation": Case(
        stages({"activation_function": "os.system"}), "activation 'os.system' is not supported"
    ),
    "stage of another width": Case(
        both(
            stages({}),
            lambda f: save_file(
                {"linear.weight": torch.eye(16), "linear.bias": torch.zeros(16)},
                f / "2" / "model.safetensors",
            ),
        ),
        "takes 16 dimensions but is given 32",
    ),
    "stage cut short": Case(both(stages({}), cut("2/model.safetensors", 0.5)), "cannot be read"),
    "stage that is NaN": Case(
        both(stages({}), weights(lambda t: t["linear.weight"].fill_(torch.nan), "2")),
        "holds NaN or infinity",
    ),
    "an exported graph that is gone": Case(text("engine.json", "{}"), "engine.json"),
    "an exported graph elsewhere": Case(
        text("engine.json", '{"format": "onnx", "file": "../x.onnx"}'), "engine.json"
    ),
}
