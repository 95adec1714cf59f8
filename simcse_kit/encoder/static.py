"""Static embeddings: a table of token vectors without a transformer, as of model2vec."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig
from transformers.modeling_outputs import BaseModelOutput

from simcse_kit.encoder.tokenization import Tokenization, check_length

__all__ = ["StaticBackbone", "StaticTokenization"]


class StaticConfig(PretrainedConfig):  # type: ignore[no-untyped-call]
    """Configuration of a :class:`StaticBackbone`, under the names that transformers uses."""

    model_type = "static"

    def __init__(self, hidden_size: int = 0, **others: Any):
        self.hidden_size = hidden_size
        self.num_hidden_layers = 0
        super().__init__(**others)


class StaticBackbone(nn.Module):
    """A table of token vectors in the place of a transformer.

    A token has the same state in every text. One more row, of zeros, stands for a text without
    tokens, see :attr:`empty_id`.

    Args:
        table: ``(vocabulary, d)`` token vectors.

    Examples:
        >>> backbone = StaticBackbone(torch.eye(3))
        >>> backbone(torch.tensor([[2, 0, backbone.empty_id]])).last_hidden_state.tolist()
        [[[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]]
    """

    def __init__(self, table: Tensor):
        super().__init__()
        count, width = table.shape
        self.config = StaticConfig(width)
        # The row of zeros gets no gradient.
        self.embedding = nn.Embedding(count + 1, width, padding_idx=count)
        with torch.no_grad():
            self.embedding.weight[:count] = table

    @property
    def empty_id(self) -> int:
        """Token id of a text without tokens."""
        return self.embedding.num_embeddings - 1

    @property
    def table(self) -> Tensor:
        """Token vectors ``(vocabulary, d)``."""
        return self.embedding.weight[:-1]

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the table, as models of transformers do."""
        return self.embedding

    def forward(self, input_ids: Tensor, **_: Any) -> BaseModelOutput:
        """Look the tokens up; attention mask, positions and other arguments have no effect."""
        return BaseModelOutput(last_hidden_state=self.embedding(input_ids))


class StaticTokenization(Tokenization):
    """Sentences to token ids without special tokens.

    Args:
        tokenizer: Hugging Face tokenizer that adds no special tokens.
        empty_id: Token id of a text without tokens.
        max_length: Maximum number of tokens per sentence; by default 1,000,000.
        prompt: Text put in front of every sentence.
        drop_unknown: Whether unknown tokens are left out, as in model2vec.

    Raises:
        ConfigError: The length is not allowed.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        empty_id: int,
        max_length: int | None = None,
        prompt: str = "",
        drop_unknown: bool = False,
    ):
        super().__init__(tokenizer, max_length=max_length, prompt=prompt)
        self._empty_id = empty_id
        self.drop_unknown = drop_unknown

    @property
    def empty_id(self) -> int:
        """Token id of a text without tokens."""
        return self._empty_id

    def rows(
        self, texts: Sequence[str], max_length: int | None = None, prompt: str | None = None
    ) -> tuple[list[list[int]], int]:
        """Tokenize sentences; see :meth:`Tokenization.rows`."""
        length = self.max_length if max_length is None else check_length(max_length, None)
        # The limit of the base class counts unknown tokens, which are left out before the cut.
        whole, _ = super().rows(texts, 10**6, prompt)
        if self.drop_unknown:
            unknown = self.tokenizer.unk_token_id
            whole = [[token for token in row if token != unknown] for row in whole]
        cut = sum(len(row) > length for row in whole)
        return [row[:length] or [self.empty_id] for row in whole], cut
