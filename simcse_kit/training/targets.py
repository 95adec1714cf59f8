"""Target vectors of the training rows, from the vectors of one or more teachers."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from simcse_kit.bulk.shard_log import text_checksum
from simcse_kit.encoder.dense import Dense
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.folder.fingerprint import fingerprint
from simcse_kit.encoder.unknown_text import some
from simcse_kit.errors import ConfigError
from simcse_kit.evaluation.dev_set import DevSet
from simcse_kit.evaluation.embed import Embeddings
from simcse_kit.methods.common.teachers import TeacherConfig
from simcse_kit.metrics.whitening import closest_rotation, moments, principal_directions
from simcse_kit.training.plan import RunPlan
from simcse_kit.training.teacher_cache import RowText, TeacherCache, TeacherVectors
from simcse_kit.training.teachers import Teacher
from simcse_kit.utils.distributed import Processes
from simcse_kit.utils.files import replacement

__all__ = ["Targets", "targets_of"]

logger = logging.getLogger(__name__)

# Rows by whose vectors the targets are rotated.
_ROTATION_ROWS = 2048


@dataclass(frozen=True)
class Targets:
    """Vectors of the teachers side by side, projected on some directions.

    Attributes:
        teachers: vectors of each teacher, of length 1.
        shares: weights of the teachers with a sum of 1; the cosine of two targets before the
            projection is the mean of the teachers' cosines with these weights.
        directions: (D, t) float32 for teachers with D dimensions in total; None keeps all.
    """

    teachers: Sequence[TeacherVectors]
    shares: Sequence[float]
    directions: NDArray[np.float32] | None = None

    def __call__(self, rows: Sequence[int]) -> NDArray[np.float32]:
        """Return the (n, t) targets of n rows by their numbers."""
        return self._joined([vectors(rows) for vectors in self.teachers])

    def shards(self) -> Iterator[NDArray[np.float32]]:
        """Iterate over the (n, t) targets of all rows in order."""
        for parts in zip(*(vectors.shards() for vectors in self.teachers), strict=True):
            yield self._joined(parts)

    def _joined(self, parts: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        scaled = [
            part * np.float32(share**0.5) for part, share in zip(parts, self.shares, strict=True)
        ]
        joined = np.concatenate(scaled, axis=1)
        return joined if self.directions is None else joined @ self.directions


def targets_of(plan: RunPlan, encoder: SentenceEncoder, processes: Processes) -> Targets | None:
    """Compute the targets of all rows, or find them in the cache.

    Args:
        plan: the plan of the run.
        encoder: the student; with ``method.bridge = "dense"`` it gets a further layer.
        processes: processes that share the work.

    Returns:
        The targets; None if the method has no teachers.

    Raises:
        ConfigError: the student has more dimensions than the teachers together, or the cache cannot
            be written.
        DataError: the cache holds the vectors of another text.
        ModelError: a teacher cannot be opened, or gives no vectors.
    """
    options = plan.options
    if not isinstance(options, TeacherConfig):
        return None
    teachers = [Teacher(name, plan.arguments.device) for name in options.teachers]
    corpus = plan.corpus
    text = RowText(
        corpus.fingerprint, len(corpus), lambda: (row for texts in corpus.texts() for row in texts)
    )
    # So that the seed gives the same numbers whether the vectors are computed or found.
    with torch.random.fork_rng([]):
        caches = [TeacherCache(teacher, text, processes) for teacher in teachers]
        width = sum(cache.dim for cache in caches)
        dim = encoder.embedding_dim
        if options.bridge == "principal" and dim > width:
            raise ConfigError(
                f"the student has {dim} dimensions and its teachers have {width}, so the targets "
                "cannot be projected on as many directions; use --set method.bridge=dense, more "
                "teachers, or a narrower student"
            )
        targets = Targets([cache.fill() for cache in caches], options.shares())
        if options.bridge == "principal" and dim < width:
            keys = [cache.key for cache in caches]
            path = _place(caches[0].folder.parent, keys, plan, encoder)
            directions = processes.from_first(lambda: _directions(path, targets, plan, encoder))
            targets = Targets(targets.teachers, targets.shares, directions)
        if plan.dev is not None:
            _log_dev_scores(plan.dev, teachers, targets, processes)
    if options.bridge == "dense":
        encoder.add_stage(Dense(dim, width, bias=False, activation="identity"))
        logger.info("the student gets a layer from %d to the teachers' %d dimensions", dim, width)
    return targets


def _place(folder: Path, keys: Sequence[str], plan: RunPlan, student: SentenceEncoder) -> Path:
    """Name the file of the directions by the teachers, the text and the start of the student."""
    assert student.source is not None
    parts = [list(keys), plan.options.model_dump()["teacher_weights"]]
    parts += [fingerprint(student.source), plan.config.model.model_dump()]
    name = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:40]
    return folder / f"directions-{name}.npy"


def _directions(
    path: Path, targets: Targets, plan: RunPlan, student: SentenceEncoder
) -> NDArray[np.float32]:
    """Compute the directions on which targets are projected, or read those of an earlier run.

    They are the principal directions, rotated so that the targets of some rows come closest to the
    vectors that the student starts with; cosines between targets do not depend on the rotation. A
    resumed run needs the same ones bit for bit, and they depend on the number of threads.
    """
    if not path.is_file():
        dim = student.embedding_dim
        found = principal_directions(moments(map(torch.from_numpy, targets.shards())), dim)
        rows = some(range(len(plan.corpus)), _ROTATION_ROWS)
        texts = [row.texts[0] for row in plan.corpus.rows(rows)]
        projected = torch.from_numpy(targets(rows)).double() @ found
        start = student.encode(texts, to="torch", normalize=True).double()
        found = found @ closest_rotation(projected, start)
        with replacement(path) as temporary, temporary.open("wb") as file:
            np.save(file, found.float().numpy())
    directions: NDArray[np.float32] = np.load(path)
    return directions


def _log_dev_scores(
    dev: DevSet, teachers: Sequence[Teacher], targets: Targets, processes: Processes
) -> None:
    """Log the dev score of each teacher, and that of the target, which bounds the student's."""
    sentences = list(dict.fromkeys(dev.pairs.sentences()))
    text = RowText(text_checksum(sentences), len(sentences), lambda: sentences)
    found = [TeacherCache(teacher, text, processes).fill() for teacher in teachers]
    rows = range(len(sentences))

    def score(vectors: NDArray[np.float32]) -> float:
        return dev.score(_Known(sentences, vectors))["spearman"]

    logger.info(
        "%s: %s; their target with %d dimensions %.2f",
        dev.name,
        ", ".join(
            f"teacher {teacher.name} {score(vectors(rows)):.2f}"
            for teacher, vectors in zip(teachers, found, strict=True)
        ),
        targets([0]).shape[1],
        score(Targets(found, targets.shares, targets.directions)(rows)),
    )


class _Known(Embeddings):
    """An encoder of sentences whose vectors are known."""

    def encode(self, sentences: list[str]) -> NDArray[np.float32]:
        """Return the (n, d) vectors of n sentences."""
        return self(sentences)
