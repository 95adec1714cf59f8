"""The stages after pooling: Dense layers and truncation."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn.functional import normalize

from simcse_kit.errors import ModelError

__all__ = ["ACTIVATIONS", "Dense", "Truncation", "check_stage"]

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "identity": nn.Identity,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "sigmoid": nn.Sigmoid,
}


class Dense(nn.Module):
    """Linear map and activation, ``activation(x W^T + b)``: ``Dense`` of sentence-transformers.

    With ``tanh`` and equal sizes this is the MLP head of SimCSE (arXiv 2104.08821, section 6.3).

    Args:
        in_features: Number of input dimensions.
        out_features: Number of output dimensions.
        bias: Whether ``b`` is added.
        activation: One of :data:`ACTIVATIONS`.

    Raises:
        ModelError: The activation is unknown.
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, activation: str = "tanh"
    ):
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ModelError(
                f"unknown activation {activation!r} in a Dense stage; "
                f"known: {', '.join(sorted(ACTIVATIONS))}"
            )
        self.in_features = in_features
        self.out_features = out_features
        self.activation_name = activation
        self.linear = nn.Linear(in_features, out_features, bias=bias)
        self.activation = ACTIVATIONS[activation]()

    def forward(self, vectors: Tensor) -> Tensor:
        """Map ``(n, in_features)`` to ``(n, out_features)``."""
        return cast(Tensor, self.activation(self.linear(vectors)))

    @property
    def is_mlp_head(self) -> bool:
        """Whether this is the square tanh layer that SimCSE and BERT's pooler share."""
        return (
            self.activation_name == "tanh"
            and self.in_features == self.out_features
            and self.linear.bias is not None
        )


class Truncation(nn.Module):
    """The first dimensions of the vectors, as with ``truncate_dim`` of sentence-transformers.

    It is the last stage of a head. Training the encoder trains the truncated vectors.

    Args:
        in_features: Number of input dimensions.
        out_features: Number of dimensions that are kept.
        unit: Whether vectors are scaled to unit length before the truncation.
    """

    activation_name = "truncated"
    is_mlp_head = False

    def __init__(self, in_features: int, out_features: int, *, unit: bool = False):
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.unit = unit

    def forward(self, vectors: Tensor) -> Tensor:
        """Map ``(n, in_features)`` to ``(n, out_features)``."""
        vectors = normalize(vectors, dim=1) if self.unit else vectors
        return vectors[:, : self.out_features]


def check_stage(dense: Dense, head: nn.Sequential | None, width: int) -> None:
    """Refuse a stage that cannot follow a head whose vectors have ``width`` dimensions.

    Raises:
        ModelError: The input width of the stage differs, or the vectors are truncated.
    """
    if dense.in_features != width:
        raise ModelError(
            f"a Dense stage takes {dense.in_features} dimensions, and this encoder gives {width}; "
            "fit it on vectors of this encoder"
        )
    if head is not None and isinstance(head[-1], Truncation):
        raise ModelError(
            f"the encoder truncates its vectors to {width} dimensions, after which no stage can be "
            "saved; remove truncate_dim from config_sentence_transformers.json of its folder"
        )
