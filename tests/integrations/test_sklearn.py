"""The transformer of scikit-learn."""

from __future__ import annotations

import pickle
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import sklearn.base
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks

from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.errors import DataError, MissingExtraError, ModelError
from simcse_kit.integrations.sklearn import SentenceVectorizer

TEXTS = ["a cat sat .", "the dog ran .", "birds", "music ?"] * 3


@pytest.fixture
def vectorizer(tiny_encoder_dir: Path) -> SentenceVectorizer:
    return SentenceVectorizer(str(tiny_encoder_dir), pooling="mean", device="cpu")


@pytest.mark.filterwarnings("ignore:Can't test estimator")
def test_scikit_learn_accepts_the_estimator(vectorizer: SentenceVectorizer) -> None:
    estimator_checks.check_estimator(vectorizer)


@pytest.mark.parametrize(
    "check",
    [
        # check_estimator leaves these out for input that is not numeric.
        estimator_checks.check_estimator_repr,
        estimator_checks.check_estimator_tags_renamed,
        estimator_checks.check_get_params_invariance,
        estimator_checks.check_mixin_order,
        estimator_checks.check_no_attributes_set_in_init,
        estimator_checks.check_parameters_default_constructible,
        estimator_checks.check_set_params,
        estimator_checks.check_valid_tag_types,
    ],
)
def test_checks_that_need_no_numeric_input_pass(check, vectorizer: SentenceVectorizer) -> None:
    check("SentenceVectorizer", sklearn.base.clone(vectorizer))


def test_vectors_are_those_of_the_encoder(
    vectorizer: SentenceVectorizer, tiny_encoder_dir: Path
) -> None:
    encoder = SentenceEncoder.load(tiny_encoder_dir, pooling="mean", device="cpu")
    assert np.array_equal(vectorizer.fit_transform(TEXTS), encoder.encode(TEXTS))
    names = vectorizer.get_feature_names_out()
    assert (len(names), names[0]) == (32, "sentencevectorizer0")
    given = SentenceVectorizer(encoder, normalize=True, max_length=4).fit(TEXTS)
    expected = encoder.encode(TEXTS, normalize=True, max_length=4)
    assert np.array_equal(given.transform(np.array(TEXTS)), expected)


def test_a_fitted_vectorizer_can_be_pickled(vectorizer: SentenceVectorizer) -> None:
    again = pickle.loads(pickle.dumps(vectorizer.fit(TEXTS)))
    assert np.array_equal(again.transform(TEXTS), vectorizer.transform(TEXTS))


def test_it_works_in_pipelines_searches_and_for_columns_of_tables(
    vectorizer: SentenceVectorizer,
) -> None:
    pandas = pytest.importorskip("pandas")
    labels = [0, 1, 2, 3] * 3
    pipeline = make_pipeline(vectorizer, LogisticRegression())
    search = GridSearchCV(pipeline, {"sentencevectorizer__max_length": [4, 16]}, cv=3)
    assert search.fit(TEXTS, labels).predict(TEXTS).tolist() == labels
    table = pandas.DataFrame({"text": TEXTS, "number": range(12)})
    columns = ColumnTransformer([("text", vectorizer, "text")], remainder="passthrough")
    found = columns.set_output(transform="pandas").fit_transform(table)
    assert found.shape == (12, 33)
    assert found.columns[0] == "text__sentencevectorizer0"


def test_input_that_is_no_list_of_sentences_is_refused(vectorizer: SentenceVectorizer) -> None:
    with pytest.raises(DataError, match="put it into a list"):
        vectorizer.fit("a cat")
    with pytest.raises(DataError, match="not a string"):
        vectorizer.fit(TEXTS).transform([1, 2])


def test_transform_before_fit_and_a_missing_model_are_refused(
    vectorizer: SentenceVectorizer,
) -> None:
    with pytest.raises(NotFittedError):
        vectorizer.transform(TEXTS)
    with pytest.raises(ModelError, match="no-such-folder"):
        SentenceVectorizer("./no-such-folder").fit(TEXTS)


def test_a_missing_scikit_learn_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "simcse_kit.integrations.sklearn")
    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    with pytest.raises(MissingExtraError, match=r"simcse-kit\[tasks\]"):
        import_module("simcse_kit.integrations.sklearn")
