"""Dockerfile and compose.yaml: their commands exist, and they hold no secret."""

from __future__ import annotations

import json
import re
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from simcse_kit.cli.main import app

REPOSITORY = Path(__file__).resolve().parents[2]
DOCKERFILE = (REPOSITORY / "Dockerfile").read_text("utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load((REPOSITORY / "compose.yaml").read_text("utf-8"))
OURS = {name: one for name, one in COMPOSE["services"].items() if one["image"] == "simcse"}


def commands() -> list[list[str]]:
    """Return the arguments of ``simcse`` in both files."""
    found = [json.loads(words) for words in re.findall(r"^CMD (.*)", DOCKERFILE, re.M)]
    return [*found, *(service["command"] for service in OURS.values())]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_commands_of_the_containers_exist(words: list[str]) -> None:
    assert 'ENTRYPOINT ["simcse"]' in DOCKERFILE
    group: Any = typer.main.get_command(app)
    name, *rest = words
    assert name in ("serve", "index")
    command = group.commands[name]
    command = getattr(command, "commands", {}).get("build", command)  # `simcse index` builds
    command.make_context(name, list(rest))


def test_services_are_published_to_this_machine_only_and_cannot_change_their_image() -> None:
    for service in OURS.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
    assert "ports" not in COMPOSE["services"]["milvus"]
    assert not re.search(r"(?i)(password|secret|token)", DOCKERFILE + json.dumps(COMPOSE))


def test_the_image_is_small_unprivileged_and_has_only_the_package() -> None:
    last = DOCKERFILE.rpartition("\nFROM ")[2]
    assert re.search(r"^USER 10001$", last, re.M)
    assert "pip install" not in last
    lines = (REPOSITORY / ".dockerignore").read_text("utf-8").splitlines()
    allowed = {line[1:] for line in lines if line.startswith("!")}
    copied = set(" ".join(re.findall(r"^COPY ([^-].*) \S+$", DOCKERFILE, re.M)).split())
    assert "*" in lines
    assert copied == allowed
    assert not any(fnmatch("key", pattern) for pattern in allowed)


def test_the_health_check_is_a_command_of_the_image() -> None:
    check = re.search(r"HEALTHCHECK [^\n]*\\\n\s+CMD (\[.*\])", DOCKERFILE)
    assert check is not None
    python, option, code = json.loads(check[1])
    assert (python, option) == ("python", "-c")
    compile(code, "HEALTHCHECK", "exec")
    assert "/health/ready" in code
    assert "EXPOSE 8000" in DOCKERFILE
