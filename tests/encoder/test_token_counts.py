"""Unknown tokens, dropped characters and equal token ids, for tokenizers of several kinds."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.token_counts import TokenCounts, collected, count_tokens, percent
from simcse_kit.encoder.unknown_text import check_known, coverage, some
from simcse_kit.errors import DataError
from tests.encoder.test_encode import SlowTokenizer

CHINESE = ["今天天气很好", "你叫什么名字", "我喜欢吃苹果"]


@pytest.fixture
def mini() -> SentenceEncoder:
    return SentenceEncoder.load("mini")


@pytest.fixture
def tiny(tiny_encoder_dir: Path) -> SentenceEncoder:
    return SentenceEncoder.load(tiny_encoder_dir)


def wrapped(core: Tokenizer, **options: Any) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", **options)


def unigram(*, byte_fallback: bool) -> PreTrainedTokenizerFast:
    pieces = [("<unk>", 0.0), ("<pad>", 0.0), ("▁", -3.0), ("▁the", -2.0), ("▁cat", -2.0)]
    pieces += [("a", -4.0), ("c", -4.0)]
    if byte_fallback:
        pieces += [(f"<0x{number:02X}>", -9.0) for number in range(256)]
    core = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=byte_fallback))
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    return wrapped(core, unk_token="<unk>")


def byte_level() -> PreTrainedTokenizerFast:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate(["<pad>", "<end>", *letters])}
    core = Tokenizer(models.BPE(vocabulary, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    # As in GPT-2, one token is used as every special token.
    return wrapped(core, unk_token="<end>", eos_token="<end>", bos_token="<end>")


def dropping() -> PreTrainedTokenizerFast:
    """No unknown token: what is not a letter of a to z goes."""
    core = Tokenizer(models.WordLevel({"<pad>": 0, "the": 1, "cat": 2}, unk_token="<none>"))
    core.normalizer = normalizers.Replace(pattern_of("[^a-z ]"), "")
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    return wrapped(core)


def pattern_of(text: str) -> Any:
    from tokenizers import Regex

    return Regex(text)


# ------------------------------------------------------------------ counts


def test_counts_of_a_wordpiece_tokenizer(mini: SentenceEncoder) -> None:
    texts = [*CHINESE[:2], "the cat sat", "The Cat sat", "the cat 今", CHINESE[0], " "]
    assert count_tokens(mini, texts).to_json() == {
        "sentences": 6,
        "tokens": 6 + 6 + 3 + 3 + 3,
        "cut": 0,
        "unknown": 13,
        "with_unknown": 3,
        "empty": 0,
        "same_ids": 2,
    }
    assert count_tokens(mini, []).to_json() == TokenCounts().to_json()
    counts = count_tokens(mini, ["a cat"] * 3 + ["the " * 90], max_length=8)
    assert (counts.sentences, counts.tokens, counts.cut) == (2, 8, 1)


def test_prompt_and_template_do_not_count(tiny: SentenceEncoder) -> None:
    plain = count_tokens(tiny, ["a cat", "blorp"])
    tiny.prompt = "the 今 dog "
    assert count_tokens(tiny, ["a cat", "blorp"]).to_json() == plain.to_json()
    tiny.prompt = ""
    tiny.set_template('zzz "[X]" is [MASK]')
    assert count_tokens(tiny, ["a cat", "blorp"]).to_json() == plain.to_json()
    assert (plain.tokens, plain.unknown) == (3, 1)


@pytest.mark.parametrize("fallback", [False, True])
def test_counts_of_a_unigram_tokenizer(
    tiny: SentenceEncoder, fallback: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny, "tokenizer", unigram(byte_fallback=fallback))
    counts = count_tokens(tiny, ["the cat", "今天天气", "the 今"])
    assert (counts.unknown, counts.with_unknown) == ((0, 0) if fallback else (2, 2))
    found = coverage(tiny, ["the cat", "今天天气", "the 今"])
    assert (found.characters, found.lost) == (14, 0 if fallback else 5)


def test_byte_level_tokenizers_know_everything(
    tiny: SentenceEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny, "tokenizer", byte_level())
    counts = count_tokens(tiny, ["", "a", "今天", "😀"])
    assert (counts.tokens, counts.unknown, counts.empty, counts.same_ids) == (11, 0, 0, 0)
    assert coverage(tiny, ["a", "今天", "😀", "हिंदी"]).lost == 0


def test_tokenizers_that_drop_characters(
    tiny: SentenceEncoder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tiny, "tokenizer", dropping())
    texts = ["the cat", "the 今 cat!", "今天", "", "😀 1"]
    counts = count_tokens(tiny, texts)
    assert (counts.unknown, counts.empty, counts.same_ids) == (0, 2, 3)
    found = coverage(tiny, texts)
    assert (found.characters, found.lost, found.example) == (6 + 8 + 2 + 2, 2 + 2 + 2, "今天")
    counts.say(tiny.tokenizer, 32)
    assert "2 of 5 distinct sentences have no token left, such as '今天'" in caplog.text


def test_characters_are_counted_without_offsets_too(
    tiny: SentenceEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["the cat", "blorp", "the blorp"]
    fast = coverage(tiny, texts)
    monkeypatch.setattr(tiny, "tokenizer", SlowTokenizer(tiny.tokenizer))
    slow = coverage(tiny, texts)
    assert (fast.characters, fast.lost) == (19, 10)
    assert slow.characters == 19
    assert abs(slow.lost - fast.lost) <= 1


def test_letters_that_the_normalizer_deletes_are_lost(mini: SentenceEncoder) -> None:
    # Accents of Latin letters are not: the letter stays.
    assert coverage(mini, ["Ünïcode café", "the cat\u200b\u00ad sat"]).lost == 0
    found = coverage(mini, ["cafe\u0301 कि"])
    assert found.lost == 3


def test_a_sample_is_drawn_in_order() -> None:
    assert some(range(10), 20) == list(range(10))
    drawn = some(range(10_000), 100)
    assert len(drawn) == 100
    assert drawn == sorted(set(drawn))


# ------------------------------------------------------------------ log messages


def test_encode_says_what_is_unknown_and_equal_once(
    mini: SentenceEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    vectors = mini.encode([*CHINESE, "a cat"])
    assert (vectors[0] == vectors[1]).all()
    assert [record.getMessage().partition(";")[0] for record in caplog.records] == [
        "18 of 20 tokens are unknown to the vocabulary of the model (90 %), in 3 of 4 distinct "
        "sentences, such as '今天天气很好'",
        "2 of 4 distinct sentences become the token ids of another one and get its vector, such as "
        "'今天天气很好' and '你叫什么名字'",
    ]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
    mini.encode([*CHINESE, "a cat"])
    assert len(caplog.records) == 2


def test_a_few_unknown_tokens_are_no_warning(
    mini: SentenceEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "simcse_kit.encoder.token_counts")
    mini.encode(["the cat sat on the mat " * 8, "a 今 cat"])
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert record.getMessage() == (
        "1 of 51 tokens are unknown to the vocabulary of the model (2 %), in 1 of 2 distinct "
        "sentences, such as 'a 今 cat'"
    )


def test_known_text_says_nothing(mini: SentenceEncoder, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "simcse_kit.encoder.token_counts")
    mini.encode(["the cat sat", "a dog", ""])
    assert caplog.records == []


def test_a_stream_says_it_at_the_end(
    mini: SentenceEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    def sentences() -> Iterator[str]:
        yield from CHINESE
        yield "a cat"

    list(mini.encode_stream(sentences(), chunk=2))
    assert caplog.messages[0].startswith("18 of 20 tokens are unknown")
    # Equal ids are looked for within a chunk.
    assert caplog.messages[1].startswith("1 of 4 distinct sentences become the token ids")


def test_similarity_says_that_both_sides_are_equal(
    mini: SentenceEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    assert mini.similarity(CHINESE[0], CHINESE[1])[0, 0] == pytest.approx(1)
    assert any("1 of 2 distinct sentences become the token ids" in m for m in caplog.messages)


def test_counts_are_collected(mini: SentenceEncoder) -> None:
    with collected() as counts:
        mini.encode(CHINESE)
        list(mini.encode_stream(["a cat"]))
    mini.encode(["a dog"])
    assert (counts.sentences, counts.tokens, counts.unknown) == (4, 20, 18)


def test_mostly_unknown_text_is_refused(mini: SentenceEncoder) -> None:
    with pytest.raises(DataError) as caught:
        check_known(mini, CHINESE, what="x.txt", allow=False)
    assert str(caught.value).startswith("x.txt is mostly unknown to the model: its tokenizer has")
    assert "100 % of the characters of 3 sentences, such as '今天天气很好'" in str(caught.value)
    assert str(caught.value).endswith("--allow-unknown (in Python: allow_unknown=True)")
    assert check_known(mini, CHINESE, what="x.txt", allow=True).share == 1
    assert (
        check_known(mini, [*CHINESE, "the cat sat on the red mat"], what="", allow=False).share
        < 0.5
    )
    assert check_known(mini, [], what="", allow=False).share == 0


@pytest.mark.parametrize(
    ("share", "words"), [(1.0, "100 %"), (0.223, "22 %"), (0.0312, "3.1 %"), (0.00002, "0.002 %")]
)
def test_percent(share: float, words: str) -> None:
    assert percent(share) == words
