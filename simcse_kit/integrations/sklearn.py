"""Sentence encoders as a transformer of scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.folder.resolve import DEFAULT_ENCODER
from simcse_kit.encoder.inputs import checked_texts, shown
from simcse_kit.encoder.quantization.layer_cache import Precision
from simcse_kit.errors import DataError, MissingExtraError

try:
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
    from sklearn.utils.validation import check_is_fitted
except ImportError:
    raise MissingExtraError("SentenceVectorizer", "tasks") from None

__all__ = ["SentenceVectorizer"]


class SentenceVectorizer(
    ClassNamePrefixFeaturesOutMixin,  # type: ignore[misc]
    TransformerMixin,  # type: ignore[misc]
    BaseEstimator,  # type: ignore[misc]
):
    """Sentences to vectors, for pipelines of scikit-learn.

    ``fit`` opens the encoder and learns nothing from the sentences. The parameters are stored
    unchecked, as scikit-learn requires, so errors are raised by ``fit`` and ``transform``.

    Args:
        model: Folder or name of the encoder, as for :meth:`SentenceEncoder.load`, or an encoder.
        pooling: Pooling to use instead of the encoder's own; not for an encoder that is loaded.
        normalize: Whether vectors are scaled to unit length; None for the encoder's own setting.
        max_length: Maximum number of tokens per sentence; None for the encoder's own.
        batch_size: Maximum number of sentences per forward pass; None for no maximum.
        precision: Number format, as for :meth:`SentenceEncoder.encode`.
        device: Device of an encoder that is given by its name.

    Attributes:
        encoder_: The encoder, after ``fit``.

    Examples:
        >>> from sklearn.linear_model import LogisticRegression
        >>> from sklearn.pipeline import make_pipeline
        >>> classifier = make_pipeline(SentenceVectorizer(), LogisticRegression())
        >>> texts = ["What a great film.", "I loved it.", "A boring film.", "I hated it."]
        >>> _ = classifier.fit(texts, ["good", "good", "bad", "bad"])
        >>> classifier.predict(["I really loved this film."]).tolist()
        ['good']
    """

    def __init__(
        self,
        model: Any = DEFAULT_ENCODER,
        *,
        pooling: str | None = None,
        normalize: bool | None = None,
        max_length: int | None = None,
        batch_size: int | None = None,
        precision: Precision = "fp32",
        device: Any = "auto",
    ):
        self.model = model
        self.pooling = pooling
        self.normalize = normalize
        self.max_length = max_length
        self.batch_size = batch_size
        self.precision = precision
        self.device = device

    def fit(self, X: Any, y: Any = None) -> SentenceVectorizer:  # noqa: ARG002, N803
        """Open the encoder.

        Args:
            X: Sentences, which are checked only.
            y: Ignored.

        Raises:
            DataError: The sentences are not an iterable of strings.
            ModelError: The encoder cannot be opened.
            ConfigError: A parameter is not allowed.
        """
        _texts(X)
        if isinstance(self.model, SentenceEncoder):
            self.encoder_ = self.model
        else:
            self.encoder_ = SentenceEncoder.load(
                self.model, pooling=self.pooling, device=self.device
            )
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:  # noqa: N803
        """Compute the vectors of sentences.

        Args:
            X: n sentences: a list, a one-dimensional array, or a column of a table.

        Returns:
            ``(n, d)`` float32.

        Raises:
            NotFittedError: ``fit`` was not called.
            DataError: The sentences are not an iterable of strings.
            ConfigError: A parameter is not allowed.
        """
        check_is_fitted(self)
        return self.encoder_.encode(
            _texts(X),
            normalize=self.normalize,
            max_length=self.max_length,
            batch_size=self.batch_size,
            precision=self.precision,
        )

    @property
    def _n_features_out(self) -> int:
        """Number of dimensions, from which ``get_feature_names_out`` makes the names."""
        return self.encoder_.embedding_dim

    def __sklearn_tags__(self) -> Any:
        """Describe the input: one-dimensional, of strings."""
        tags = super().__sklearn_tags__()
        tags.input_tags.string = tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        return tags


def _texts(sentences: Any) -> list[str]:
    if isinstance(sentences, str):
        raise DataError(f"sentences are one string {shown(sentences)}; put it into a list")
    return checked_texts(sentences)
