"""The option --engine, and addresses where no cluster answers."""

from __future__ import annotations

import socket
import sys

import pytest

from simcse_kit.cluster.connection import connected, parse_engine
from simcse_kit.errors import ConfigError, MissingExtraError


@pytest.mark.parametrize("text", ["spark", "ray:", "rays:1", "Ray", ""])
def test_engines_that_do_not_exist_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="allowed: local, ray, or ray:ADDRESS"):
        parse_engine(text)


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(MissingExtraError, match=r"pip install 'simcse-kit\[ray\]'"),
        connected("ray"),
    ):
        pass


@pytest.mark.long
@pytest.mark.parametrize("form", ["127.0.0.1:{port}", "ray://127.0.0.1:{port}", "no.such.host:1"])
def test_an_address_where_no_cluster_answers_is_refused(form: str) -> None:
    pytest.importorskip("ray")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = form.format(port=closed.getsockname()[1])
    with (
        pytest.raises(ConfigError, match="no cluster answers; compare"),
        connected(f"ray:{address}"),
    ):
        pass
