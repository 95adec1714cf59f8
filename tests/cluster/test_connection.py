"""The option --engine, and addresses where no cluster answers."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from simcse_kit import __version__
from simcse_kit.cluster.connection import ClusterInfo, connected, parse_engine
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


class FakeRay(SimpleNamespace):
    """Ray with one machine, whose workers have a version of the package."""

    def __init__(self, version: str = __version__):
        super().__init__(
            calls=[],
            is_initialized=lambda: False,
            init=self.start,
            shutdown=lambda: self.calls.append("shutdown"),
            cluster_resources=lambda: {"CPU": 3.0},
            nodes=lambda: [{"Alive": True, "NodeID": "a"}, {"Alive": False, "NodeID": "b"}],
            remote=lambda _: self,
            options=lambda **_: SimpleNamespace(remote=lambda: version),
            get=list,
            exceptions=SimpleNamespace(RayTaskError=ZeroDivisionError),
        )

    def start(self, **options: Any) -> None:
        os.write(2, b"noise of the core")
        self.calls.append(options)


def install(ray: FakeRay, monkeypatch: pytest.MonkeyPatch) -> None:
    strategies = SimpleNamespace(NodeAffinitySchedulingStrategy=lambda *_, **__: None)
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray._private.worker", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "ray.util.scheduling_strategies", strategies)


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    fake = FakeRay()
    install(fake, monkeypatch)
    return fake


def test_workers_of_this_machine_end_with_the_block(
    ray: FakeRay, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KeyError), connected("ray", 3) as cluster:  # noqa: PT012
        assert cluster == ClusterInfo(nodes=1, cpus=3, gpus=0)
        assert ray.calls[0]["num_cpus"] == 3
        os.write(2, b"words of the command")
        raise KeyError
    assert ray.calls[1:] == ["shutdown"]
    assert capfd.readouterr().err == "words of the command"


@pytest.mark.usefixtures("ray")
def test_sigterm_leaves_the_block_and_has_its_former_handler_afterwards() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught, connected():
        signal.raise_signal(signal.SIGTERM)
    assert caught.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.fixture(params=["127.0.0.1", "::1"])
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    """An address at which something listens."""
    host = str(request.param)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        server = socket.create_server((host, 0), family=family)
    except OSError:
        pytest.skip(f"this machine has no {host}")
    with server:
        yield f"{f'[{host}]' if ':' in host else host}:{server.getsockname()[1]}"


def test_a_cluster_with_another_version_of_the_package_is_refused(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = FakeRay()
    install(same, monkeypatch)
    with connected(f"ray:{address}") as cluster:
        assert cluster.cpus == 3
    other = FakeRay("0.0.1")
    install(other, monkeypatch)
    with (
        pytest.raises(ConfigError, match=r"the workers have version 0\.0\.1 of simcse-kit"),
        connected(f"ray:{address}"),
    ):
        pass
    for each in (same, other):
        assert each.calls[0]["address"] == address
        assert each.calls[1:] == ["shutdown"]
