"""Loading of the parts of an encoder from a model folder."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from simcse_kit.encoder import backbone as hf
from simcse_kit.encoder.dense import Dense, Truncation
from simcse_kit.encoder.folder.adapters import find_adapter, merge_adapter, tokenizer_folder
from simcse_kit.encoder.folder.recipe import (
    ENGINE_FILE,
    TEMPLATE_POOLING,
    Recipe,
    checkpoint_head,
    read_recipe,
)
from simcse_kit.encoder.folder.resolve import HubOptions, is_local, resolve_model
from simcse_kit.encoder.folder.safe_io import read_object
from simcse_kit.encoder.folder.static_files import open_static
from simcse_kit.encoder.pooling import HEAD_POOLINGS, check_pooling, pooled_width
from simcse_kit.encoder.threads import on_own_thread
from simcse_kit.encoder.tokenization import Tokenization, check_length, check_template
from simcse_kit.errors import ConfigError, ModelError

__all__ = ["DEFAULT_POOLING", "is_sentence_encoder", "load_parts"]

logger = logging.getLogger(__name__)

DEFAULT_POOLING = "mean"


@dataclass(frozen=True)
class _Options:
    """The caller's choices; None for what the folder says."""

    pooling: str | None
    max_length: int | None
    template: str | None
    trust_remote_code: bool
    hub: HubOptions


def load_parts(
    path_or_name: str | os.PathLike[str],
    *,
    pooling: str | None,
    max_length: int | None,
    template: str | None,
    trust_remote_code: bool,
    hub: HubOptions,
) -> dict[str, Any]:
    """Load the parts of an encoder; see :meth:`~simcse_kit.encoder.encoder.SentenceEncoder.load`.

    Returns:
        The arguments of :class:`~simcse_kit.encoder.model.EncoderModel`.

    Raises:
        ConfigError: An argument is not allowed, or does not fit the model.
        ModelError: The model is missing, damaged or not supported.
    """
    if template is not None:
        check_template(template)
        if pooling not in (None, TEMPLATE_POOLING):
            raise ConfigError(
                f"a template needs pooling {TEMPLATE_POOLING!r}, not {pooling!r}; omit one of them"
            )
        pooling = TEMPLATE_POOLING
    if pooling is not None:
        check_pooling(pooling)
    folder = resolve_model(path_or_name, trust_remote_code=trust_remote_code, hub=hub)
    if hub.revision is not None and is_local(path_or_name):
        raise ConfigError(
            f"revision={hub.revision!r} applies to models of the Hugging Face Hub, and "
            f"{path_or_name} is on this machine; leave it out"
        )
    options = _Options(pooling, max_length, template, trust_remote_code, hub)
    return on_own_thread(lambda: _parts_of(folder, options))


def _parts_of(folder: Path, options: _Options) -> dict[str, Any]:
    trusted = options.trust_remote_code
    recipe = read_recipe(folder)
    adapter = find_adapter(recipe.transformer, trust_remote_code=trusted, hub=options.hub)
    weights, home = recipe.transformer, folder
    if adapter is not None:
        base = read_recipe(adapter.base)
        weights = base.transformer
        if recipe.pooling is None:  # the folder holds the adapter only, without a recipe
            recipe, home = base, adapter.base
    exported = (folder / ENGINE_FILE).exists()
    if options.template is not None:
        if exported and options.template != recipe.template:
            raise ConfigError(
                f"{folder} was exported, and its template is part of the graph; export the model "
                "again to use another template"
            )
        recipe.template = options.template
    if exported:
        return _exported_parts(folder, recipe, options)
    if recipe.static:
        return _static_parts(folder, recipe, options)
    chosen, stages = _choose_pooling(home, recipe, options.pooling)
    backbone = hf.load_backbone(weights, trust_remote_code=trusted)
    if adapter is not None:
        backbone = merge_adapter(adapter, backbone, pooler=chosen in HEAD_POOLINGS)
    tokenizer = hf.load_tokenizer(
        weights if adapter is None else tokenizer_folder(adapter, weights),
        vocabulary=backbone.get_input_embeddings().num_embeddings,
        trust_remote_code=trusted,
    )
    head = _head(folder, recipe, stages, pooled_width(chosen, backbone.config.hidden_size))
    if chosen != TEMPLATE_POOLING:
        recipe.template = ""
    positions = hf.position_limit(backbone)
    return {
        "backbone": backbone,
        "tokenization": _tokenization(folder, recipe, tokenizer, positions, options.max_length),
        "pooling": chosen,
        "head": nn.Sequential(*head) if head else None,
        # sentence-transformers truncates last and does not normalize again.
        "normalize": recipe.normalize and not (head and isinstance(head[-1], Truncation)),
        "source": folder,
    }


def _static_parts(folder: Path, recipe: Recipe, options: _Options) -> dict[str, Any]:
    """Load the parts from a folder of static embeddings."""
    if options.pooling not in (None, "mean"):
        raise ConfigError(
            f"{folder} has static embeddings, which are averaged; pooling {options.pooling!r} "
            "needs a transformer, so leave it out"
        )
    length = recipe.max_length if options.max_length is None else options.max_length
    backbone, tokenization = open_static(
        recipe.transformer, max_length=length, prompt=recipe.prompt
    )
    head = _head(folder, recipe, recipe.stages, backbone.config.hidden_size)
    return {
        "backbone": backbone,
        "tokenization": tokenization,
        "pooling": "mean",
        "head": nn.Sequential(*head) if head else None,
        "normalize": recipe.normalize and not (head and isinstance(head[-1], Truncation)),
        "source": folder,
    }


def _exported_parts(folder: Path, recipe: Recipe, options: _Options) -> dict[str, Any]:
    """Load the parts from a folder written by ``simcse export``."""
    from simcse_kit.encoder.export.bundle import ExportedBackbone, open_engine, read_facts

    if options.pooling not in (None, recipe.pooling):
        raise ConfigError(
            f"{folder} was exported with pooling {recipe.pooling!r}, which is part of its graph; "
            f"export the model again to use {options.pooling!r}"
        )
    facts = read_facts(folder)
    tokenizer = hf.load_tokenizer(
        folder, vocabulary=facts.vocabulary, trust_remote_code=options.trust_remote_code
    )
    positions = facts.positions
    return {
        "backbone": ExportedBackbone(folder, facts),
        "tokenization": _tokenization(folder, recipe, tokenizer, positions, options.max_length),
        "pooling": recipe.pooling,
        "head": nn.Sequential(*recipe.stages) if recipe.stages else None,
        # The graph has already normalized a vector that it truncates.
        "normalize": recipe.normalize and recipe.truncate_dim is None,
        "source": folder,
        "engine": open_engine(folder, facts),
    }


def _head(folder: Path, recipe: Recipe, stages: list[Dense], width: int) -> list[nn.Module]:
    """Check that the stages fit together, and add the truncation that the folder asks for."""
    for stage in stages:
        if stage.in_features != width:
            raise ModelError(
                f"{folder}: a Dense stage takes {stage.in_features} dimensions but is given "
                f"{width}; its files do not belong together"
            )
        width = stage.out_features
    if recipe.truncate_dim is None or recipe.truncate_dim >= width:
        return [*stages]
    return [*stages, Truncation(width, recipe.truncate_dim, unit=recipe.normalize)]


def _tokenization(
    folder: Path, recipe: Recipe, tokenizer: Any, positions: int | None, max_length: int | None
) -> Tokenization:
    if max_length is None and recipe.max_length is not None:
        try:
            max_length = check_length(recipe.max_length, positions)
        except ConfigError as error:
            raise ModelError(f"{folder}: {error}; or give max_length when loading") from None
    tokenization = Tokenization(
        tokenizer,
        positions=positions,
        max_length=max_length,
        lowercase=recipe.lowercase,
        prompt=recipe.prompt,
        template=recipe.template,
    )
    tokenization.prompts = recipe.prompts
    tokenization.include_prompt = recipe.include_prompt
    return tokenization


def _choose_pooling(folder: Path, recipe: Recipe, wanted: str | None) -> tuple[str, list[Dense]]:
    """Choose the pooling and the Dense stages after it."""
    if wanted == TEMPLATE_POOLING and not recipe.template:
        raise ConfigError(
            f"pooling {TEMPLATE_POOLING!r} needs a template, and {folder} has none; give one when "
            "loading, or train with method promptbert"
        )
    if recipe.pooling is None:
        return _choose_without_recipe(folder, wanted)
    if wanted is None or wanted == recipe.pooling:
        return recipe.pooling, recipe.stages
    if wanted in HEAD_POOLINGS:
        if recipe.pooling in HEAD_POOLINGS:
            return wanted, recipe.stages
        head = checkpoint_head(recipe.transformer, wanted)
        if head is None:
            raise ModelError(
                f"pooling {wanted!r} needs a head, and {folder} has none; its own recipe is "
                f"{recipe.pooling!r}"
            )
        return wanted, [head]
    logger.warning(
        "%s was saved with pooling %r%s; %r is used because you asked for it",
        folder,
        recipe.pooling,
        " and a head, which is dropped" if recipe.stages else "",
        wanted,
    )
    return wanted, []


def is_sentence_encoder(folder: Path) -> bool:
    """Whether a model folder states how it makes sentence vectors, which a raw model does not.

    It has a recipe, or is a checkpoint of princeton-nlp/SimCSE, or an adapter of such a model.

    Raises:
        ModelError: a file is missing or damaged, or the recipe is not supported.
    """
    if read_recipe(folder).pooling is not None:
        return True
    adapter = find_adapter(folder)
    if adapter is not None:
        return is_sentence_encoder(adapter.base)
    return _trained_by_simcse(folder)


def _trained_by_simcse(folder: Path) -> bool:
    # The class name that princeton-nlp/SimCSE trains under; such a checkpoint has its MLP.
    named = read_object(folder / "config.json").get("architectures")
    return isinstance(named, list) and any(str(name).endswith("ForCL") for name in named)


def _choose_without_recipe(folder: Path, wanted: str | None) -> tuple[str, list[Dense]]:
    """Choose for a plain Hugging Face folder or a SimCSE checkpoint."""
    chosen = wanted or ("cls" if _trained_by_simcse(folder) else DEFAULT_POOLING)
    head = checkpoint_head(folder, chosen) if chosen in HEAD_POOLINGS else None
    if wanted is None:
        if head is None:
            chosen = DEFAULT_POOLING
        logger.info(
            "%s has no pooling recipe; using %r%s",
            folder,
            chosen,
            " with its MLP head (for an unsupervised SimCSE checkpoint give "
            "pooling='cls_before_pooler')"
            if chosen == "cls"
            else "",
        )
    if chosen not in HEAD_POOLINGS:
        return chosen, []
    if head is None:
        raise ModelError(
            f"pooling {chosen!r} needs a head, and {folder} has no weights for one; choose "
            "another pooling, such as 'cls_before_pooler' or 'mean'"
        )
    return chosen, [head]
