"""Encoding on an accelerator: the host queues forward passes and does not wait for the results."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simcse_kit.encoder.accelerator import (
    FEWEST_TOKENS,
    does_not_fit,
    empty_cache,
    is_out_of_memory,
    memory_errors,
    token_budget,
)
from simcse_kit.encoder.device import usual_state
from simcse_kit.encoder.encode_options import EncodeOptions
from simcse_kit.encoder.forked_processes import require_usable
from simcse_kit.encoder.forward_pass import TokenRows, evaluation_mode, vectors_of_batch
from simcse_kit.encoder.model import EncoderModel
from simcse_kit.encoder.packing.layers import Block
from simcse_kit.encoder.packing.run import prepared_blocks
from simcse_kit.encoder.pooling import FIRST_TOKEN_POOLINGS
from simcse_kit.encoder.quantization.layer_cache import half_encoder
from simcse_kit.errors import ModelError
from simcse_kit.utils.host_copies import send

__all__ = ["QueuedEncoding", "copy_to_host", "require_finite"]

logger = logging.getLogger(__name__)

# Maximum number of forward passes that the device has not finished. It bounds the memory of their
# inputs, and how far the progress bar can be wrong.
_QUEUED = 4
# A job has at least this number of forward passes, so that the device computes one while the host
# prepares the next one.
_FEWEST_PASSES = 4

# Where attention runs padded inside a packed batch, the padded size is at most this multiple of the
# token budget.
_PADDED = 2

OnDone = Callable[[int], object]
"""Callback, called with a number of rows after each forward pass."""


class QueuedEncoding:
    """The forward passes of one call of ``encode``, or of one stream, on an accelerator.

    In half precision the weights are those at the time of construction. A token budget that turned
    out to be too large for the memory stays smaller for all later rows.

    Args:
        model: Encoder on an accelerator.
        options: Sizes and precision of the forward passes.
        on_done: See :data:`OnDone`.

    Raises:
        ConfigError: CUDA was initialised in the parent of this process, or the architecture does
            not support the precision.
        ModelError: The weights in half precision do not fit into the memory of the device.
    """

    def __init__(self, model: EncoderModel, options: EncodeOptions, on_done: OnDone | None = None):
        require_usable(model.device)
        self._given = self._model = model
        self._options = options
        self._on_done = on_done
        self._budget = options.token_budget
        self._unpooled = model.unpooled(options.prompt)
        self._queued: deque[tuple[torch.cuda.Event, int]] = deque()
        if options.precision != "fp32":
            what = f"the copy of the weights in {options.precision}"
            with memory_errors(what, model.device):
                self._model = half_encoder(model, options.precision)

    @torch.inference_mode()
    def vectors(self, rows: TokenRows) -> Tensor:
        """Queue the forward passes of tokenized sentences, without dropout and not normalised.

        Args:
            rows: Token ids of each sentence.

        Returns:
            ``(n, embedding_dim)`` float32 on the device, in the order of ``rows``.

        Raises:
            ModelError: A single sentence does not fit into the memory of the device.
        """
        device = self._model.device
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        order = np.argsort(-lengths, kind="stable")
        lengths = lengths[order]
        ends = np.cumsum(lengths)
        places = np.empty_like(order)
        places[order] = np.arange(len(order))
        with (
            evaluation_mode(self._model),
            usual_state(device),
            memory_errors(f"the encoding of {len(rows)} sentences", device),
        ):
            shape = (len(rows), self._model.embedding_dim)
            vectors = torch.empty(shape, dtype=torch.float32, device=device)
            first_only = self._model.pooling in FIRST_TOKEN_POOLINGS
            packs = bool(rows) and self._model.packs  # finds out how batches run
            blocks = prepared_blocks(self._model.backbone, first_only=first_only) if packs else None
            start = 0
            while start < len(rows):
                stop = self._end_of_batch(start, lengths, ends)
                part = self._attempt([rows[row] for row in order[start:stop].tolist()], blocks)
                if part is not None:
                    vectors[start:stop] = part
                    self._note(stop - start)
                    start = stop
            # A model that turned out not to pack is not tried again.
            self._given.known_batching = self._model.known_batching
            return vectors[send(torch.from_numpy(places), device)]

    def finish(self) -> None:
        """Wait for all forward passes."""
        while self._queued:
            self._wait_for_oldest()

    def _end_of_batch(self, start: int, lengths: NDArray[np.int64], ends: NDArray[np.int64]) -> int:
        """Find the end of the batch that begins at a place.

        Args:
            start: Place in the order from the longest row to the shortest.
            lengths: Number of tokens of each row in this order.
            ends: Cumulative sum of ``lengths``.
        """
        wanted = max(FEWEST_TOKENS, int(ends[-1]) // _FEWEST_PASSES)
        if self._budget is None and wanted > FEWEST_TOKENS:
            self._budget = token_budget(self._model)
        budget = wanted if self._budget is None else self._budget
        if self._options.token_budget is None:
            budget = min(budget, wanted)
        if self._model.packs:
            before = ends[start] - lengths[start]
            stop = int(np.searchsorted(ends, before + budget, side="right"))
            stop = min(stop, start + _PADDED * budget // int(lengths[start]))
        else:  # the padding counts too
            stop = start + budget // int(lengths[start])
        if self._options.batch_size is not None:
            stop = min(stop, start + self._options.batch_size)
        return min(max(stop, start + 1), len(lengths))

    def _attempt(self, rows: TokenRows, blocks: list[Block] | None) -> Tensor | None:
        """Compute the vectors of a batch; None if it needs a smaller budget, which is then set."""
        model, device = self._model, self._model.device
        longest = len(rows[0])
        try:
            return vectors_of_batch(model, rows, blocks, self._unpooled)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if len(rows) == 1:
                raise does_not_fit(f"a sentence of {longest} tokens", device) from error
        # Only here, after the except clause, the tensors of the failed pass are free.
        empty_cache(device)
        tokens = sum(map(len, rows)) if model.packs else longest * len(rows)
        self._budget = max(1, tokens // 2)
        logger.warning(
            "%s ran out of memory in a forward pass of %d tokens; from now on a pass has at most "
            "%d tokens",
            device,
            tokens,
            self._budget,
        )
        return None

    def _note(self, rows: int) -> None:
        """Call ``on_done`` when the device has finished the rows that were queued last."""
        event = recorded_event(self._model.device)
        if event is None:
            self._say_done(rows)
            return
        self._queued.append((event, rows))
        if len(self._queued) > _QUEUED:
            self._wait_for_oldest()

    def _wait_for_oldest(self) -> None:
        event, rows = self._queued.popleft()
        event.synchronize()
        self._say_done(rows)

    def _say_done(self, rows: int) -> None:
        if self._on_done is not None:
            self._on_done(rows)


def copy_to_host(vectors: Tensor, options: EncodeOptions) -> Callable[[], NDArray[np.float32]]:
    """Start copying vectors to the host.

    Args:
        vectors: ``(n, d)`` float32.
        options: Options of the encoding.

    Returns:
        A function that waits for the copy, calls :func:`require_finite` and returns the copy.
    """
    if vectors.device.type != "cuda":
        copied = vectors.cpu()
        require_finite(copied, options)
        return copied.numpy
    pinned = torch.empty(vectors.shape, dtype=vectors.dtype, device="cpu", pin_memory=True)
    pinned.copy_(vectors, non_blocking=True)
    event = recorded_event(vectors.device)
    assert event is not None

    def wait() -> NDArray[np.float32]:
        event.synchronize()
        require_finite(pinned, options)
        return pinned.numpy().copy()  # the pinned memory is used again

    return wait


def recorded_event(device: torch.device) -> torch.cuda.Event | None:
    """Record the end of the work that is queued on a CUDA device now; None for other devices."""
    if device.type != "cuda":
        return None
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    return event


def require_finite(vectors: Tensor, options: EncodeOptions) -> None:
    """Refuse vectors whose computation left the range of fp16.

    Args:
        vectors: ``(n, d)``; the host waits for an accelerator to compute them.
        options: Options of the encoding.

    Raises:
        ModelError: The precision is fp16 and a vector has NaN or infinity.
    """
    if options.precision != "fp16":
        return
    damaged = int((~vectors.isfinite()).any(dim=1).sum())
    if damaged:
        raise ModelError(
            f"precision 'fp16': {damaged} of {len(vectors)} vectors have NaN or infinity, because "
            "numbers inside the model are above 65504, the largest of fp16; use 'bf16' or 'fp32'"
        )
