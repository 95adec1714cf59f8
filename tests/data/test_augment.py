"""Single augmentations, chains of them, and what they refuse."""

from __future__ import annotations

import pickle
import sys
from collections import Counter
from pathlib import Path
from random import Random
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from simcse_kit.data.augment import (
    AUGMENTATIONS,
    AugmentedViews,
    Chain,
    preview,
    register_augmentation,
)
from simcse_kit.data.augment.base import join_words, random_count, split_words
from simcse_kit.data.augment.chain import random_of
from simcse_kit.data.augment.synonyms import other_lemmas
from simcse_kit.data.augment.words import place_spans
from simcse_kit.data.readers import Example, Kind
from simcse_kit.errors import ConfigError, DataError, MissingExtraError

TEXT = "one two three four five six seven eight nine ten"


def draws(chain: str, text: str = TEXT, count: int = 400) -> Counter[str]:
    """What a chain makes of a text, and how often."""
    rngs = [random_of(0, 0, row, 1) for row in range(count)]
    return Counter(Chain.parse(chain)([text] * count, rngs))


@pytest.fixture
def thesaurus(tmp_path: Path) -> Path:
    path = tmp_path / "synonyms.tsv"
    path.write_text("Cat\tkitty\tcat\thouse cat\n\nbig\tlarge\ncat\tmoggy\n", encoding="utf-8")
    return path


# ---------------------------------------------------------------- golden


@pytest.mark.parametrize(
    ("chain", "expected"),
    [
        ("identity", TEXT),
        ("delete(0.3)", "two three five six seven eight nine"),
        ("delete(0.3, mark='[MASK]')", "[MASK] two three [MASK] five six seven eight nine [MASK]"),
        ("delete_span(0.3)", "four five six seven eight nine ten"),
        ("reorder(1)", "ten two three four five six seven eight nine one"),
        ("repeat(0.2)", TEXT),
        ("crop(0.5)", "one two three four five"),
        ("delete(0.1)|reorder(2)", "five eight four two six seven three nine ten"),
    ],
)
def test_golden(chain: str, expected: str) -> None:
    # Recorded, not derived: what they mean is tested below. A change of these changes every run
    # with augmentations, and a resumed one in its middle.
    assert preview(chain, [TEXT], seed=1) == [expected]


# ---------------------------------------------------------------- words


def test_words() -> None:
    assert split_words(" a  b\tc\n") == ["a", "b", "c"]
    assert split_words("我爱 NLP。ok") == ["我", "爱", "NLP", "。", "ok"]
    assert join_words(["我", "爱", "NLP", "。", "a", "b"]) == "我爱NLP。a b"
    # spaces of a text that is not changed stay
    assert draws("delete(0)", "a  b\tc") == Counter({"a  b\tc": 400})


def test_random_count_is_exact_in_the_mean() -> None:
    rng = Random(0)
    counts = Counter(random_count(0.1, 5, rng) for _ in range(4000))
    assert set(counts) == {0, 1}
    assert abs(counts[1] / 4000 - 0.5) < 0.03
    assert {random_count(0.5, 4, rng) for _ in range(50)} == {2}
    assert random_count(1.0, 7, rng) == 7


def test_spans_are_placed_alike() -> None:
    rng = Random(0)
    found = Counter(tuple(place_spans(5, [2, 1], rng)) for _ in range(6000))
    # all the ways there are to put them, each as likely
    assert set(found) == {
        (first, second)
        for first in [(0, 2), (1, 2), (2, 2)]
        for second in [(2, 1), (3, 1), (4, 1)]
        if first[0] + 2 <= second[0]
    }
    assert all(abs(count - 1000) < 150 for count in found.values())


# ---------------------------------------------------------------- CLEAR


def test_every_word_is_deleted_as_often() -> None:
    texts = draws("delete(0.3)", count=3000)
    lost = Counter(
        word for text in texts.elements() for word in set(split_words(TEXT)) - set(text.split())
    )
    assert {len(text.split()) for text in texts} == {7}
    assert all(abs(lost[word] / 3000 - 0.3) < 0.04 for word in split_words(TEXT))


def test_a_mark_stands_for_a_run_of_deleted_words() -> None:
    for text in draws("delete(0.7, mark='#')"):
        assert "# #" not in text
        assert text.count("#") >= 1
        assert len(text.replace("#", "").split()) == 3


def test_a_deleted_span_is_one_stretch() -> None:
    words = TEXT.split()
    expected = {" ".join(words[:at] + words[at + 4 :]) for at in range(7)}
    assert set(draws("delete_span(0.4)")) == expected
    assert all(text.count("#") <= 2 for text in draws("delete_span(0.4, 2, '#')"))
    assert {text.count("#") for text in draws("delete_span(0.4, 2, '#')")} == {1, 2}


def test_pairs_of_spans_are_swapped() -> None:
    words = TEXT.split()
    expected = set()
    for first in range(10):
        for second in range(first + 1, 10):
            moved = list(words)
            moved[first], moved[second] = words[second], words[first]
            expected.add(" ".join(moved))
    assert set(draws("reorder(1)", count=2000)) == expected
    # spans of three words: each stays whole
    for text in draws("reorder(1, span=0.3)"):
        moved = text.split()
        places = [at for at, (new, old) in enumerate(zip(moved, words, strict=True)) if new != old]
        first, second = places[0], places[3]
        assert moved[first : first + 3] == words[second : second + 3]
        assert moved[second : second + 3] == words[first : first + 3]
        assert len(places) == 6
    assert set(draws("reorder", "alone")) == {"alone"}
    assert set(draws("reorder(1, span=1.0)", "a b")) == {"b a"}


def test_synonyms_of_a_file(thesaurus: Path) -> None:
    chain = f"substitute(1.0, synonyms={str(thesaurus)!r})"
    assert set(draws(chain, "A big cat, (CAT) Cat sat.", 300)) == {
        f"A large {first}, ({second}) {third} sat."
        for first in ("kitty", "house cat", "moggy")
        for second in ("KITTY", "HOUSE CAT", "MOGGY")
        for third in ("Kitty", "House cat", "Moggy")
    }
    # a third of the words, looked for among all that have one
    one = draws(f"substitute(0.25, synonyms={str(thesaurus)!r})", "the big cat sat")
    assert set(one) == {"the large cat sat"} | {
        f"the big {cat} sat" for cat in ("kitty", "house cat", "moggy")
    }


def test_synonyms_of_wordnet(monkeypatch: pytest.MonkeyPatch) -> None:
    senses: dict[str, list[list[str]]] = {
        "dog": [["dog", "domestic_dog"], ["frump", "dog"], ["cad", "hound"]],
        "dogs": [["dog", "domestic_dog"]],
        "he": [["helium", "he"]],
    }

    class Reader:
        def ensure_loaded(self) -> None:
            pass

        def synsets(self, word: str) -> list[Any]:
            made = [
                SimpleNamespace(lemma_names=lambda n=names: n) for names in senses.get(word, [])
            ]
            return list(made)

    module = ModuleType("nltk.corpus")
    module.wordnet = Reader()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "nltk.corpus", module)
    monkeypatch.setitem(sys.modules, "nltk", ModuleType("nltk"))
    other_lemmas.cache_clear()
    found = {f"He {other} dogs" for other in ("Domestic dog", "Frump", "Cad", "Hound")}
    assert set(draws("substitute(1.0)", "He Dog dogs")) == found - {"He Cad dogs", "He Hound dogs"}

    def missing() -> None:
        raise LookupError("a long text\nof many lines")

    monkeypatch.setattr(module.wordnet, "ensure_loaded", missing)
    with pytest.raises(ConfigError, match="the data of WordNet is not installed; run ") as e:
        Chain.parse("substitute(0.1)")
    assert "\n" not in str(e.value)
    monkeypatch.setitem(sys.modules, "nltk.corpus", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'simcse-kit\[wordnet\]'"):
        Chain.parse("substitute(0.1)")
    other_lemmas.cache_clear()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a\tb\nalone\n", "synonyms.tsv:2: the line must have a word and at least one synonym"),
        ("a\tA\n", "synonyms.tsv:1: the line must"),
        ("\n\n", "synonyms"),
        (None, "synonyms.tsv"),
    ],
)
def test_files_of_synonyms_that_are_none(content: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "synonyms.tsv"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        Chain.parse(f"substitute(0.1, synonyms={str(path)!r})")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- the others


def test_repeated_words_follow_themselves() -> None:
    texts = draws("repeat(0.5)")
    counts = Counter(len(text.split()) - 10 for text in texts.elements())
    assert set(counts) == set(range(6))
    assert all(abs(count - 400 / 6) < 35 for count in counts.values())
    for text in texts:
        words = text.split()
        once = [word for at, word in enumerate(words) if at == 0 or words[at - 1] != word]
        assert once == TEXT.split()
    assert set(draws("repeat(0)")) == {TEXT}
    assert set(draws("repeat(0.1)", "a")) == {"a", "a a"}  # two may be, but there is one


def test_crops_are_stretches() -> None:
    words = TEXT.split()
    assert set(draws("crop(0.8)")) == {" ".join(words[at : at + 8]) for at in range(3)}
    assert set(draws("crop(0.01)", "a b")) == {"a", "b"}


def test_functions_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "my_translation.py").write_text(
        "import subprocess\n"
        "from subprocess import getoutput\n"
        "def shout(texts): return [text.upper() for text in texts]\n"
        "def lose(texts): return texts[1:]\n"
        "def number(texts): return [1 for _ in texts]\n"
        "def nothing(texts): pass\n"
        "def blank(texts): return [' ' for _ in texts]\n"
        "constant = 3\n",
        encoding="utf-8",
    )
    try:
        allowed = {"allow_call": ["my_translation", "no_such_module"]}
        assert preview("back_translate('my_translation:shout')", ["a b"], **allowed) == ["A B"]
        parsed = Chain.parse("call('my_translation:shout')|repeat(0)", **allowed)
        chain = pickle.loads(pickle.dumps(parsed))
        assert chain(["c"], [Random()]) == ["C"]
        assert preview("call('my_translation:blank')", ["a b"], **allowed) == ["a b"]
        for name, what in [
            ("lose", "has 0 texts"),
            ("number", "holds 1"),
            ("nothing", "is not a list"),
        ]:
            with pytest.raises(DataError, match=f"my_translation:{name} got 1 .*{what}"):
                preview(f"call('my_translation:{name}')", ["a"], **allowed)
        for name, what in [
            ("my_translation:constant", "is of type int; name a function"),
            ("my_translation:other", "cannot be imported: .*no attribute 'other'"),
            ("no_such_module:f", "cannot be imported: No module named"),
            ("my_translation", "must be written 'package.module:function'"),
            ("my_translation:subprocess", "'subprocess' is another module; name that one"),
            ("my_translation:subprocess.getoutput", "'subprocess' is another module"),
            (
                "my_translation:getoutput",
                "is a function of subprocess; write 'subprocess:getoutput'",
            ),
        ]:
            with pytest.raises(ConfigError, match=what):
                Chain.parse(f"call({name!r})", **allowed)
    finally:
        sys.modules.pop("my_translation", None)


def test_functions_run_only_where_their_module_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "at_import.py").write_text("raise SystemExit('imported')\n", encoding="utf-8")
    for name, allowed in [
        ("subprocess:getoutput", []),
        ("at_import:f", []),
        ("at_import:f", ["at", "at_import.below", "import"]),
        ("at_import.below:f", ["at_imp"]),
    ]:
        for chain in (f"call({name!r})", f"delete(0.1)|back_translate({name!r})"):
            module = name.partition(":")[0]
            message = rf"needs permission: .*add --allow-call {module} \(in Python: allow_call="
            with pytest.raises(ConfigError, match=message):
                AugmentedViews(chain, 0, allow_call=allowed)
    # Of a package, its modules.
    assert Chain.parse("call('html.parser:HTMLParser')", allow_call=["html"]).changes


# ---------------------------------------------------------------- chains


def test_steps_follow_each_other() -> None:
    chain = Chain.parse("delete(0.3)|reorder(2)")
    assert [type(step).__name__ for step in chain.steps] == ["Delete", "Reorder"]
    for text in draws("delete(0.3)|reorder(2)"):
        assert len(set(text.split())) == 7
        assert set(text.split()) < set(TEXT.split())


def test_nothing_is_ever_blank() -> None:
    assert set(draws("delete(1.0)")) == {TEXT}
    assert set(draws("delete(1.0, mark='#')")) == {TEXT}
    assert set(draws("delete_span(1.0)|delete(1)|reorder(1)", "a b")) == {"b a"}


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        ("delte(0.1)", "unknown augmentation 'delte' (did you mean 'delete'?); known: back_trans"),
        ("delete(0.1", "data.augment is 'delete(0.1', which cannot be read"),
        ("", "data.augment is '', which cannot be read"),
        ("delete", "delete does not take these arguments (missing a required argument: 'rate')"),
        ("delete(0.1, rat=1)", "it takes (rate: "),
        ("delete(1.5)", "data.augment: delete: rate is 1.5; it must be a number from 0 to 1"),
        ("delete(-0.1)", "rate is -0.1; it must be"),
        ("delete(True)", "rate is True; it must be"),
        ("delete('a')", "rate is 'a'; it must be"),
        ("delete(0.1, mark=' ')", "mark is ' '; it must be a word"),
        ("delete_span(0.1, 0)", "spans is 0; it must be a whole number of at least 1"),
        ("reorder(0)", "pairs is 0; it must be a whole number of at least 1"),
        ("reorder(1.5)", "pairs is 1.5; it must be"),
        ("reorder(1, span=2)", "span is 2; it must be"),
        ("crop(0)", "keep is 0, which keeps no word"),
        ("repeat(2)", "rate is 2; it must be"),
        ("mlm(0.1, top=0)", "top is 0; it must be"),
        ("substitute(0.1, synonyms=3)", "synonyms is 3; it must be the name of a .tsv file"),
        ("call(3)", "function is 3; it must be written"),
    ],
)
def test_wrong_chains(chain: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Chain.parse(chain)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("data.augment")


def test_every_name_has_a_class() -> None:
    for name in AUGMENTATIONS:
        assert callable(AUGMENTATIONS.resolve(name))


def test_mlm_has_no_preview() -> None:
    with pytest.raises(ConfigError, match="mlm needs a model"):
        preview("delete(0.1)|mlm", ["a"])


# ---------------------------------------------------------------- views


def numbered(setting: str | list[str], kind: Kind, views: int) -> list[list[str]]:
    """The texts of row 5 after the augmentations of its views, and the views."""
    augment = AugmentedViews(setting, seed=0)
    laid = augment.lay_out(kind, tuple(range(views)))
    row = Example(tuple(f"{TEXT} {view}" for view in range(views)), row=5)
    texts = [row.texts[view] for view in laid]
    return [texts, augment(texts, [row], [True] * len(texts))]


@pytest.mark.parametrize(
    ("setting", "kind", "views", "changed"),
    [
        ("delete(0.5)", "texts", 1, [False, True]),
        (["delete(0.5)", "identity"], "texts", 1, [True, False]),
        ("delete(0.5)", "pairs", 2, [True, True]),
        ("delete(0.5)", "labelled", 2, [True, True]),
        (["identity", "delete(0.5)"], "pairs", 2, [False, True]),
        ("delete(0.5)", "triplets", 4, [True] * 4),
        (["identity", "identity", "delete(0.5)"], "triplets", 5, [False, False, True, True, True]),
        (["delete(0.5)", "identity"], "documents", 4, [True, False, False, False]),
    ],
)
def test_which_view_gets_which_chain(
    setting: str | list[str], kind: Kind, views: int, changed: list[bool]
) -> None:
    before, after = numbered(setting, kind, views)
    assert [new != old for new, old in zip(after, before, strict=True)] == changed


def test_views_with_one_chain_differ() -> None:
    _, (first, second) = numbered(["delete(0.5)", "delete(0.5)"], "texts", 1)
    assert first != second


def test_absent_texts_are_left_alone() -> None:
    augment = AugmentedViews("delete(1)|delete(0.5)", seed=0)
    augment.lay_out("triplets", (0, 1, 2))
    texts = [TEXT, TEXT, ""]
    assert augment(texts, [Example((TEXT, TEXT))], [True, True, False])[2] == ""


@pytest.mark.parametrize(
    ("count", "kind", "views"),
    [
        *((count, "texts", 1) for count in (0, 1, 3)),
        *((count, "pairs", 2) for count in (1, 3)),
        *((count, "triplets", 3) for count in (2, 4)),
    ],
)
def test_a_chain_for_each_view(count: int, kind: Kind, views: int) -> None:
    augment = AugmentedViews(["identity"] * count, seed=0)
    with pytest.raises(ConfigError, match=rf"data.augment has {count} chains, and {kind} take \d"):
        augment.lay_out(kind, tuple(range(views)))


def test_an_augmentation_of_ones_own_is_registered(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "loud_words.py").write_text(
        "from simcse_kit.data.augment import WordAugmentation\n"
        "class Loud(WordAugmentation):\n"
        "    def __init__(self, mark='!'):\n"
        "        self.mark = mark\n"
        "    def change(self, words, rng):\n"
        "        return [word.upper() + self.mark for word in words]\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(AUGMENTATIONS, "_entries", dict(AUGMENTATIONS._entries))
    register_augmentation("loud", "loud_words:Loud")
    chain = Chain.parse("crop(0.2)|loud(mark='?')")
    assert chain(["one"], [Random(0)]) == ["ONE?"]
    assert pickle.loads(pickle.dumps(chain))(["one"], [Random(0)]) == ["ONE?"]
    with pytest.raises(ConfigError, match=r"unknown augmentation 'louds' .did you mean 'loud'"):
        Chain.parse("louds")
    with pytest.raises(ConfigError, match="the augmentation 'crop' exists already"):
        register_augmentation("crop", "loud_words:Loud")
    register_augmentation("not_one", "pathlib:Path")
    with pytest.raises(ConfigError, match="refers to Path, which is not a subclass of"):
        Chain.parse("not_one(1)")
