"""A Hugging Face Hub on this machine, which stores what huggingface_hub's own client uploads."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import huggingface_hub
import pytest
import yaml

TOKEN = "hf_test"
# huggingface_hub passes the file to its HTTP library in a deprecated way.
DEPRECATED = "ignore:Use 'content:DeprecationWarning"


@dataclass
class FakeHub:
    """Repositories and the requests that a client needs to create and fill them.

    Attributes:
        address: Address of the server.
        visibility: Visibility of each repository, by name.
        files: Content of each repository by path.
        commits: Number of commits of each repository.
        down: Status with which every upload to an existing repository is answered; 0 for none.
    """

    address: str = ""
    visibility: dict[str, str] = field(default_factory=dict)
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    commits: dict[str, int] = field(default_factory=dict)
    down: int = 0
    _large: dict[str, bytes] = field(default_factory=dict)

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        """Return the status and the JSON of the answer to one request."""
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            text = json.loads(body)["content"]
            yaml.safe_load(text.split("---\n")[1])
            return 200, {"errors": [], "warnings": []}
        if method == "PUT" and path.startswith("/large/"):
            self._large[hashlib.sha256(body).hexdigest()] = body
            return 200, {}
        if self.down:
            return self.down, {"error": "the service has a pause"}
        if "/preupload/" in path:
            return 200, {"files": [self._mode(each) for each in json.loads(body)["files"]]}
        if path.endswith(".git/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            return 200, {"transfer": "basic", "objects": [self._place(each) for each in objects]}
        if "/commit/" in path:
            return self._commit(path.removeprefix("/api/models/").partition("/commit/")[0], body)
        return 404, {"error": f"{method} {path}"}

    def _create(self, wanted: dict[str, Any]) -> tuple[int, Any]:
        name = f"{wanted['organization']}/{wanted['name']}"
        url = {"url": f"{self.address}/{name}"}
        if name in self.visibility:
            return 409, {"error": "You already created this model repo", **url}
        if wanted["organization"] == "another-team":
            return 403, {"error": "You don't have the rights to create a model there"}
        self.visibility[name] = wanted["visibility"]
        self.files[name], self.commits[name] = {}, 0
        return 200, url

    def _mode(self, file: dict[str, Any]) -> dict[str, Any]:
        large = file["path"].endswith(".safetensors")
        mode = {"uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
        return {"path": file["path"], **mode}

    def _place(self, wanted: dict[str, Any]) -> dict[str, Any]:
        upload = {"href": f"{self.address}/large/{wanted['oid']}"}
        return {**wanted, "actions": {"upload": upload}}

    def _commit(self, name: str, body: bytes) -> tuple[int, Any]:
        for line in body.decode().splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                self.files[name][value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                self.files[name][value["path"]] = self._large[value["oid"]]
        self.commits[name] += 1
        commit = f"{self.commits[name]:040x}"
        return 200, {"commitUrl": f"{self.address}/{name}/commit/{commit}", "commitOid": commit}


@contextmanager
def reachable_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """Run a hub and let huggingface_hub's client use it instead of the one on the network."""
    with running_hub() as hub:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.address)
        # The transfers of hf_xet need a further service; without it the LFS protocol is used.
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        yield hub
        huggingface_hub.close_session()


@contextmanager
def running_hub() -> Iterator[FakeHub]:
    """Run a hub that accepts :data:`TOKEN` only, until the block ends."""
    hub = FakeHub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _respond(self) -> None:
            body = self._body()
            # The storage of large files is reached by addresses that need no token.
            if self.command != "PUT" and self.headers["Authorization"] != f"Bearer {TOKEN}":
                status, content = 401, {"error": "Invalid username or password."}
            else:
                status, content = hub.answer(self.command, self.path.partition("?")[0], body)
            answer = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            chunks = b""
            while size := int(self.rfile.readline(), 16):
                chunks += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return chunks

        def do_POST(self) -> None:
            self._respond()

        def do_PUT(self) -> None:
            self._respond()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
