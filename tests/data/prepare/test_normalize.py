"""Normal forms of texts: which differences count and which do not."""

from __future__ import annotations

import html

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simcse_kit.data.prepare.normalize import letters_key, normal_key, sentence_words

EXACT, NORMAL, LETTERS = "exact", "normal", "letters"


def alike(one: str, other: str) -> str | None:
    """The strictest of the keys that are equal."""
    for name, key in ((EXACT, str), (NORMAL, normal_key), (LETTERS, letters_key)):
        if key(one) == key(other):
            return name
    return None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        # Raw text, and what tokenizers make of it.
        ("It's Renzi's; don't you KNOW?", "it 's renzi 's ; don 't you know ?", NORMAL),
        ("I don't know.", "i do n't know .", NORMAL),
        ("You cannot go.", "you can not go .", NORMAL),
        ("It costs $5.", "it costs $ 5 .", NORMAL),
        ("Up 5% (see below)", "up 5 % -lrb- see below -rrb-", NORMAL),
        ('"So" \u2018it\u2019 said', "`` So '' ` it ' said", NORMAL),
        ("well-known", "well known", NORMAL),
        ("don\u00b4t", "don\u02bct", NORMAL),
        # What has no shape, or another encoding of the same.
        ("soft\u00adhy\u200bphen\ufeff", "softhyphen", NORMAL),
        ("\u202aleft\u202c to \u2067right\u2069", "left to right", NORMAL),
        ("AT&amp;amp;T &quot;&#39;&quot; &#x41;", 'AT&T "\'" A', NORMAL),
        ("R & amp ; D", "R&D", NORMAL),
        ("this &copy that &c;", "this copy that c", LETTERS),
        ("\uff21\uff22\uff23 \ufb01ne", "abc fine", NORMAL),
        ("cafe\u0301", "caf\u00e9", NORMAL),
        ("\u201cStra\u00dfe\u201d", "STRASSE", NORMAL),
        ("\u0130stanbul", "istanbul", NORMAL),
        ("\u0643\u0640\u062a\u0627\u0628", "\u0643\u062a\u0627\u0628", NORMAL),
        # Numbers.
        ("1,000,000 people", "1000000 people", NORMAL),
        ("won 2 - 1", "won 2-1", NORMAL),
        ("won 2-1", "won 21", None),
        ("1.5 metres", "15 metres", None),
        ("in 19 99", "in 1999", None),
        # Symbols.
        ("$5", "5", LETTERS),
        ("I know C++", "I know C", LETTERS),
        ("5 %", "5", LETTERS),
        ("great \U0001f600", "great", LETTERS),
        ("heart \u2764\ufe0f", "heart \u2764", NORMAL),
        ("Pepsi\u2122", "pepsi", NORMAL),
        # Letters that differ.
        ("resume", "r\u00e9sum\u00e9", None),
        ("\u0926\u093f\u0928", "\u0926\u093e\u0928", None),
        ("\u0e01\u0e34\u0e19", "\u0e01\u0e31\u0e19", None),
        ("k\u0131z", "kiz", None),
        ("\u6211\u7231\u4f60\u3002", "\u6211 \u7231 \u4f60", NORMAL),
        ("\u6211\u7231\u4f60", "\u6211\u7231\u4ed6", None),
        # Without letters and digits nothing is like anything else.
        ("?", "!", None),
        (":-)", ":-(", None),
        ("!!!", "!!", None),
        ("!  !", "!!", NORMAL),
        ("\U0001f44d", "\U0001f44e", None),
        ("\u200b", "\u00ad", None),
        ("+", "-", None),
    ],
)
def test_what_is_alike(one: str, other: str, same: str | None) -> None:
    assert alike(one, other) == same


# Signs with a part in any rule.
SIGNS = (
    "aAbn1235 '`\u00b4\u2019.,;:-+$%&#!?\u200b\u0301\u0307\u0130\u0e01\u0e34\u4e2d½²\u2122\u00a8"
)
TEXTS = st.text(st.sampled_from(SIGNS), min_size=1, max_size=12)


@settings(deadline=None, max_examples=300)
@given(st.one_of(TEXTS, st.text(min_size=1)), st.one_of(TEXTS, st.text(min_size=1)))
def test_each_key_is_coarser_than_the_one_before(one: str, other: str) -> None:
    if normal_key(one) == normal_key(other):
        assert letters_key(one) == letters_key(other)
    # A key is never empty, and the words given make the same one.
    assert normal_key(one)
    words = [word for part in sentence_words(one) for word in part]
    assert letters_key(one, words) == letters_key(one)


@settings(deadline=None, max_examples=200)
@given(st.text(st.sampled_from("abé中กिß1$+'\u2019.&<>\"()-"), min_size=1, max_size=15), st.data())
def test_escapes_and_invisible_characters_change_no_key(text: str, data: st.DataObject) -> None:
    escaped = html.escape(html.escape(text))
    at = data.draw(st.integers(0, len(text)))
    hidden = text[:at] + data.draw(st.sampled_from("\u200b\u00ad\ufeff\u2060\ufe0f")) + text[at:]
    for changed in (escaped, hidden, f" {text}\n"):
        assert normal_key(changed) == normal_key(text)
        assert letters_key(changed) == letters_key(text)


def test_words_of_sentences() -> None:
    assert sentence_words("It's fine... Don't, he said: 5% of U.S. cats!") == [
        ["it", "s", "fine"],
        ["do", "n", "t", "he", "said"],
        ["5", "of", "u"],
        ["s"],
        ["cats"],
    ]
    assert sentence_words("我爱你。กิน ABC") == [
        ["我", "爱", "你"],
        ["ก", "\u0e34", "น", "abc"],
    ]
    assert sentence_words(":-)") == []
