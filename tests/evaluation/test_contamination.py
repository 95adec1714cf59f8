"""Evaluation sentences in training text."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simcse_kit.data.prepare.normalize import letters_key
from simcse_kit.data.read_options import ReadOptions
from simcse_kit.errors import ConfigError, DataError
from simcse_kit.evaluation.contamination.check import check_leaks, check_pairs
from simcse_kit.evaluation.contamination.index import KINDS, Hit, LeakIndex, pieces
from simcse_kit.evaluation.contamination.scores import clean_scores, render_clean_scores
from simcse_kit.evaluation.evaluate import evaluate
from simcse_kit.evaluation.pair_set import PairSet
from tests.evaluation.synthetic import BagOfWords

ONE = ["A cat sat on the mat.", "a dog ran in the park today", "Is it red?", "birds"]
TWO = ["the cat was on a mat", "a man eats bread", "it is blue", "Birds"]
SETS = {"made": [PairSet("made", ONE, TWO, np.array([5.0, 0.0, 2.0, 4.0]))]}


def kinds(text: str, threshold: float | None = 0.6) -> dict[str, str]:
    index = LeakIndex({"made": [*ONE, *TWO]}, threshold)
    return {index.sentences[hit.sentence]: hit.kind for hit in index.find(text)}


def test_three_kinds_of_match() -> None:
    assert kinds("A cat sat on the mat.") == {"A cat sat on the mat.": "exact"}
    assert kinds("a cat  sat on the mat") == {"A cat sat on the mat.": "normal"}
    # 4 of 6 word pairs are shared.
    assert kinds("a cat sat on the rug") == {"A cat sat on the mat.": "near"}
    assert kinds("a cat sat on the rug", threshold=None) == {}
    assert kinds("a cat sat on the rug", threshold=0.7) == {}
    assert kinds("birds") == {"birds": "exact", "Birds": "normal"}
    assert kinds("nothing of it") == {}


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("abcd"), min_size=1, max_size=6), min_size=1, max_size=12),
    st.lists(st.sampled_from("abcd"), min_size=1, max_size=6),
)
def test_near_matches_are_all_above_the_threshold(known: list[list[str]], words: list[str]) -> None:
    texts = list(dict.fromkeys(" ".join(each) for each in known))
    text = " ".join(words) + " !"
    found = {hit.sentence: hit for hit in LeakIndex({"x": texts}, 0.5).find(text)}
    own = set(pieces(words))
    for number, other in enumerate(texts):
        theirs = set(pieces(other.split()))
        similarity = len(own & theirs) / len(own | theirs)
        if letters_key(other) == letters_key(text):
            assert found.pop(number) == Hit(number, "normal", 1.0)
        elif similarity >= 0.5:
            assert found.pop(number) == Hit(number, "near", pytest.approx(similarity))
    assert not found


def test_counts_matches_and_the_cleaned_file(tmp_path: Path) -> None:
    train = tmp_path / "train.csv"
    train.write_text(
        "id,sent0,sent1\n"
        "1,A cat sat on the mat.,the cat was on a mat\n"
        "2,a fish swims,A man eats bread!\n"
        "3,a fish swims,a whale sings\n",
        encoding="utf-8",
    )
    matches, clean = tmp_path / "matches.jsonl", tmp_path / "clean.csv"
    columns = ["sent0", "sent1"]
    report = check_leaks(
        [train], SETS, options=ReadOptions(columns=columns), matches=matches, clean=clean
    )
    assert (report.rows, report.matched_rows, report.removed) == (3, 2, 2)
    leak = report.sets["made"]
    assert leak.matched == {"exact": 2, "normal": 1, "letters": 0, "near": 0, "contained": 0}
    assert (leak.sentences, leak.pairs, leak.touched) == (8, 4, 2)
    assert (leak.whole, leak.in_one_row) == (1, 1)
    assert clean.read_text() == "id,sent0,sent1\n3,a fish swims,a whale sings\n"
    rows = [json.loads(line) for line in matches.read_text().splitlines()]
    assert [(row["line"], row["set"], row["sentence"], row["kind"]) for row in rows] == [
        (2, "made", "A cat sat on the mat.", "exact"),
        (2, "made", "the cat was on a mat", "exact"),
        (3, "made", "a man eats bread", "normal"),
    ]
    assert "2 of 3 training rows match (66.67 %)" in report.table()
    assert "found" not in report.to_json()


def test_clean_scores_leave_out_the_pairs_of_matched_sentences() -> None:
    report = evaluate(BagOfWords(), SETS, geometry_on=None)
    scores = clean_scores(report, SETS, {"made": ["Is it red?"]})["made"]
    kept = [0, 1, 3]
    part = PairSet("made", [ONE[n] for n in kept], [TWO[n] for n in kept], np.array([5.0, 0, 4]))
    alone = evaluate(BagOfWords(), {"made": [part]}, geometry_on=None)
    assert scores.clean == pytest.approx(alone.tasks["made"].spearman)
    assert (scores.pairs, scores.clean_pairs) == (4, 3)
    few = clean_scores(report, SETS, {"made": ["Is it red?", "birds"]})
    assert math.isnan(few["made"].clean)
    assert "(4 pairs)" in render_clean_scores("m", few)


def test_pairs_in_place_of_training_text() -> None:
    dev = [PairSet("dev", ["birds", "x y z"], ["Birds", "u v w"], np.array([1.0, 2.0]))]
    report = check_pairs("dev", dev, SETS)
    assert (report.rows, report.matched_rows) == (2, 1)
    assert report.sets["made"].in_one_row == 1


def test_bad_input(tmp_path: Path) -> None:
    train = tmp_path / "t.txt"
    train.write_text("a b\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="threshold is 2; allowed: above 0, at most 1"):
        check_leaks([train], SETS, threshold=2)
    with pytest.raises(ConfigError, match="of one training file, not of 2"):
        check_leaks([train, train], SETS, clean=tmp_path / "c.txt")
    with pytest.raises(ConfigError, match=r"already exists"):
        check_leaks([train], SETS, clean=train)
    with pytest.raises(DataError, match="absent"):
        check_leaks([tmp_path / "absent.txt"], SETS, matches=tmp_path / "m.tsv")
    assert [path.name for path in tmp_path.iterdir()] == ["t.txt"]


RAW = "Spain's PM didn't say \"no\" to the $5 plan, did he?"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("spain 's pm didn 't say \" no \" to the $ 5 plan , did he ?", "normal"),
        ("spain 's pm did n't say `` no '' to the $ 5 plan , did he ?", "normal"),
        ("Spain&amp;#39;s PM didn&apos;t say &quot;no&quot; to the $5 plan, did he?", "normal"),
        ("Spain\u2019s PM didn\u2019t say \u201cno\u201d to the $5\u00a0plan, did he?", "normal"),
        ("Spa\u00adin's PM\u200b didn't say \"no\" to the $5 plan, did he?\ufeff", "normal"),
        ("Spain's PM didn't say \"no\" to the 5 plan, did he? \U0001f600", "letters"),
        ("Spain's PM didn't say \"no\" to the $5 plan, did she?", "near"),
        ("It rains, and it has rained all day. " + RAW, "contained"),
        (RAW + " It rains, and it has rained all day long.", "contained"),
        ("All day they asked: " + RAW[:-1] + " and asked it again and again", "contained"),
        ('Spain\'s PM said "yes" to the $5 plan.', None),
    ],
)
def test_changes_that_leave_a_sentence_the_same(text: str, kind: str | None) -> None:
    index = LeakIndex({"made": [RAW, "Yes."]})
    assert [hit.kind for hit in index.find(text)] == [kind] * (kind is not None)
    # Without a threshold only equal texts are found.
    equal = LeakIndex({"made": [RAW, "Yes."]}, None).find(text)
    assert [hit.kind for hit in equal] == [kind] * (kind in KINDS[:3])


def tokenised(text: str) -> str:
    """Like the Moses tokenizer, and in lower case."""
    text = re.sub(r"([^\w\s'])", r" \1 ", text.lower())
    return " ".join(re.sub(r"(?<=\w)'|'(?=\W)", " '", text).split())


def test_every_raw_sentence_is_found_by_its_tokenised_form() -> None:
    path = Path(__file__).parents[2] / "data" / "sentences.txt"
    raw = path.read_text(encoding="utf-8").splitlines()[:400]
    raw += [f'He said, "{text[:-1]}", didn\'t he? $5.' for text in raw]
    index = LeakIndex({"made": map(tokenised, raw)})
    changed = 0
    for text in raw:
        assert tokenised(text) in [index.sentences[hit.sentence] for hit in index.find(text)]
        changed += tokenised(text) != text
    assert changed == len(raw)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A black dog is jumpimg into the water.", True),
        ("A black dog is jumping into the waters", True),
        ("A black cat is jumping into the water.", False),
        ("A black dog is not jumping over the water.", False),
    ],
)
def test_misspelt_sentences_are_near(text: str, found: bool) -> None:
    hits = LeakIndex({"made": ["A black dog is jumping into the water."]}).find(text)
    assert [hit.kind for hit in hits] == ["near"] * found
    assert all(0.95 <= hit.similarity < 1 for hit in hits)


def test_a_short_sentence_is_contained_only_from_stop_to_stop() -> None:
    index = LeakIndex({"made": ["A man is playing drums.", "He said so. She did too."]})

    def contained(text: str) -> list[str]:
        hits = index.find(text)
        assert {hit.kind for hit in hits} <= {"contained"}
        return [index.sentences[hit.sentence] for hit in hits]

    assert contained("It is loud: a man is playing drums; nobody sleeps.") == [
        "A man is playing drums."
    ]
    assert contained("A man is playing drums in a park near my house today.") == []
    assert contained("Well... he said so! SHE DID TOO. Fine.") == ["He said so. She did too."]
    assert contained("He said so. It rains. She did too.") == []


def test_common_words_all_over_a_long_text_contain_nothing() -> None:
    sentence = "a man and a woman are walking down a street in the rain with a dog"
    pairs = [" ".join(piece) for piece in pieces(sentence.split())]
    filler = " then something else happened that has no part in any of this "
    index = LeakIndex({"made": [sentence]})
    assert index.find(filler.join(pairs)) == []
    assert [hit.kind for hit in index.find(filler * 50 + sentence + filler * 50)] == ["contained"]


@pytest.mark.parametrize(
    ("sentence", "found", "other"),
    [
        # Scripts without spaces, and one whose vowel signs are marks.
        (
            "我今天早上在公园里看见了一只黑色的小狗。",
            "我今天早上在公园里看见了一只黑色的小猫",
            "我爱你们",
        ),
        ("ฉันเห็นสุนัขสีดำตัวหนึ่งในสวนสาธารณะเมื่อเช้านี้", "ฉันเห็นสุนัขสีดำตัวหนึ่งในสวนสาธารณะเมื่อวานนี้", "ฉันรักเธอ"),
        (
            "मैंने आज सुबह पार्क में एक छोटा काला कुत्ता देखा और वह बहुत तेज़ भाग रहा था",
            "मैंने आज सुबह पार्क में एक छोटा काला कुत्ता देखा और वह बहुत तेज़ भाग रहा है",
            "दिन",
        ),
    ],
)
def test_other_scripts(sentence: str, found: str, other: str) -> None:
    index = LeakIndex({"made": [sentence]})
    assert [hit.kind for hit in index.find(sentence.replace(" ", "  ") + " !")] == ["normal"]
    assert [hit.kind for hit in index.find(found)] == ["near"]
    assert index.find(other) == []


def test_texts_without_letters_and_digits_are_not_all_alike() -> None:
    index = LeakIndex({"made": [":-)", "!!!", "\U0001f44d"]})
    assert index.find("???") == index.find("\U0001f44e") == index.find(":-(") == []
    assert [hit.kind for hit in index.find("! ! !")] == ["normal"]


def test_tokenised_tests_are_found_in_raw_text_and_removed(tmp_path: Path) -> None:
    tokenised = ["the king 's horse isn 't his .", "it cost $ 5 ."]
    sets = {"made": [PairSet("made", tokenised, ["x y", "u v"], np.array([1.0, 2.0]))]}
    train, clean = tmp_path / "train.txt", tmp_path / "clean.txt"
    lines = [
        "The king's horse isn't his.",
        "It rains.",
        "It cost 5.",
        "Late. The king's horse isn't his.",
    ]
    train.write_text("\n".join(lines) + "\n", encoding="utf-8")
    report = check_leaks([train], sets, clean=clean)
    assert report.sets["made"].matched == {**dict.fromkeys(KINDS, 0), "normal": 1, "letters": 1}
    assert (report.matched_rows, report.removed) == (3, 3)
    assert clean.read_text(encoding="utf-8") == "It rains.\n"
    # Pages audit the training text of a model by equal texts only.
    assert check_leaks([train], sets, threshold=None).matched_rows == 2
