"""Folders of static embeddings: StaticEmbedding of sentence-transformers, and model2vec.

Both have ``tokenizer.json`` and a table in ``model.safetensors``: ``embedding.weight``, or in
model2vec ``embeddings`` with optional factors ``weights`` and rows ``mapping`` of the tokens:
https://github.com/MinishLab/model2vec/blob/0bf4f7e3289948780cc9d5cdaeb264858b692e74/model2vec/persistence/persistence.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from simcse_kit.encoder.folder.recipe import MODEL2VEC
from simcse_kit.encoder.folder.safe_io import check_finite, read_tensor
from simcse_kit.encoder.static import StaticBackbone, StaticTokenization
from simcse_kit.errors import ModelError

__all__ = ["open_static", "write_static"]

# model2vec cuts sentences by default, and sentence-transformers does not.
_LENGTH = 512
_PADDING = ("[PAD]", "<pad>", "<|endoftext|>", "</s>")


def open_static(
    folder: Path, *, max_length: int | None, prompt: str
) -> tuple[StaticBackbone, StaticTokenization]:
    """Open a folder of static embeddings.

    Args:
        folder: Folder with the table and the tokenizer.
        max_length: Maximum number of tokens per sentence; by default 512 for a model2vec folder,
            and none for one of sentence-transformers.
        prompt: Text put in front of every sentence.

    Raises:
        ConfigError: The length is not allowed.
        ModelError: The table or the tokenizer is missing, damaged, or they do not fit together.
    """
    table = read_tensor(folder, "embedding.weight")
    of_model2vec = table is None
    if table is None:
        table = _folded(folder)
    if table.ndim != 2 or 0 in table.shape:
        raise ModelError(f"{folder}: the table of token vectors has shape {tuple(table.shape)}")
    check_finite([("the table of token vectors", table.float())], folder)
    tokenizer = _open_tokenizer(folder)
    if len(tokenizer) > len(table):
        raise ModelError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens but the table only {len(table)} "
            "rows; copy the tokenizer that belongs to these vectors there"
        )
    backbone = StaticBackbone(table.float())
    tokenization = StaticTokenization(
        tokenizer,
        empty_id=backbone.empty_id,
        max_length=_LENGTH if max_length is None and of_model2vec else max_length,
        prompt=prompt,
        drop_unknown=of_model2vec,
    )
    return backbone.eval(), tokenization


def write_static(
    backbone: StaticBackbone, tokenization: StaticTokenization, folder: Path, normalize: bool
) -> None:
    """Write table and tokenizer, in the layout from which they were opened."""
    of_model2vec = tokenization.drop_unknown
    name = "embeddings" if of_model2vec else "embedding.weight"
    table = backbone.table.detach().cpu().contiguous()
    save_file({name: table}, folder / "model.safetensors", metadata={"format": "pt"})
    tokenization.tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    config: dict[str, Any] = {"model_type": "static"}
    if of_model2vec:
        config = {"model_type": MODEL2VEC, "normalize": normalize, "hidden_dim": table.shape[1]}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _folded(folder: Path) -> Tensor:
    """Read the table of a model2vec folder, with one row for each token."""
    table = read_tensor(folder, "embeddings")
    if table is None:
        raise ModelError(
            f"{folder} has no table of token vectors: no embedding.weight and no embeddings in "
            "model.safetensors"
        )
    rows, factors = read_tensor(folder, "mapping"), read_tensor(folder, "weights")
    try:
        if rows is not None:
            table = table[rows.long()]
        return table.float() if factors is None else table.float() * factors.float()[:, None]
    except (IndexError, RuntimeError):
        raise ModelError(
            f"{folder}: the mapping or the weights of the tokens do not fit the table of "
            f"{len(table)} rows"
        ) from None


def _open_tokenizer(folder: Path) -> Any:
    from transformers import PreTrainedTokenizerFast

    path = folder / "tokenizer.json"
    try:
        core = Tokenizer.from_file(str(path))
    # tokenizers raises plain exceptions.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{path} cannot be opened: {reason}") from error
    core.post_processor = None  # it would add special tokens
    known = core.get_vocab()
    unknown = getattr(core.model, "unk_token", None)
    padding = next((token for token in _PADDING if token in known), unknown)
    special = {"unk_token": unknown, "pad_token": padding}
    options = {key: token for key, token in special.items() if token in known}
    return PreTrainedTokenizerFast(tokenizer_object=core, **options)  # type: ignore[no-untyped-call]
