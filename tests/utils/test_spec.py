"""Options written as calls."""

from __future__ import annotations

import pytest

from simcse_kit.errors import ConfigError
from simcse_kit.utils.spec import Call, instantiate, parse_chain, parse_list


def test_a_chain_is_read_in_its_order() -> None:
    found = parse_chain(" delete(0.1) | reorder(2, mode='words')|identity ", what="augment")
    assert found == [
        Call("delete", (0.1,)),
        Call("reorder", (2,), (("mode", "words"),)),
        Call("identity"),
    ]
    assert parse_chain("shift(-1, [2, 3])", what="x") == [Call("shift", (-1, [2, 3]))]


@pytest.mark.parametrize(
    "text", ["", "delete(", "a;b", "a & b", "x.y(1)", "f(open('p'))", "f(**{'a': 1})", "3", "f()()"]
)
def test_anything_else_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ConfigError, match=r"augment is .* cannot be read") as caught:
        parse_chain(text, what="augment")
    assert "\n" not in str(caught.value)


def test_arguments_are_checked_against_the_signature() -> None:
    def make(rate: float = 0.1) -> float:
        if rate > 1:
            raise ValueError(f"rate is {rate}, at most 1")
        return rate

    assert instantiate(Call("delete", (0.3,)), make, what="augment") == 0.3
    with pytest.raises(ConfigError, match=r"delete does not take these .* it takes \(rate"):
        instantiate(Call("delete", (), (("rat", 0.3),)), make, what="augment")
    with pytest.raises(ConfigError, match="augment: delete: rate is 3, at most 1"):
        instantiate(Call("delete", (3,)), make, what="augment")


def test_a_list_is_split_at_commas_outside_brackets() -> None:
    objective = "triplet(margin=0.2, mining='hard')"
    assert parse_list(f'a(x=1, y="{objective}"),b', what="methods") == [
        Call("a", kwargs=(("x", 1), ("y", objective))),
        Call("b"),
    ]
    assert parse_list("a, b-c(x=1, y='z'),d()", what="methods") == [
        Call("a"),
        Call("b-c", (), (("x", 1), ("y", "z"))),
        Call("d"),
    ]
    for text in ("a(", "a)b", "1a", "a(x=(1,2))"):
        with pytest.raises(ConfigError, match="cannot be read"):
            parse_list(text, what="methods")
