"""A small Hub on this machine, which speaks enough of the protocol for the real huggingface_hub client."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Thread
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from ..local_server import LocalServer, body_of

MEMBER, STRANGER = "hf_member", "hf_stranger"  # two valid tokens: one may do everything, the other nothing special


@dataclass(frozen=True, kw_only=True)
class Request:
    """One line of the log: what was asked, by whom, and how many bytes the answer's body had."""

    host: str
    method: str
    path: str
    range: str | None
    token: str | None
    status: int
    served: int


@dataclass(kw_only=True)
class Repo:
    """A repository: its commits by sha, and the branches and tags that point at them."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, files: Mapping[str, bytes], ref: str) -> str:
        parent = self.refs.get(ref, "")
        contents = sorted((name, digest(content)) for name, content in files.items())
        sha = hashlib.sha1(repr((parent, contents)).encode()).hexdigest()
        self.commits[sha] = dict(files)
        self.refs[ref] = sha
        return sha


@dataclass
class RefusalError(Exception):
    """An answer that is an error, with the header in which the Hub says why."""

    status: int
    code: str = ""
    message: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class FakeHub:
    """Serves repositories from memory until the ``with`` block ends. Large files live on a second port, as on a CDN."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[Request] = []
        # "" or what goes wrong: "unavailable", "web page", "no ranges", "truncated", "short", "silent"
        self.mood = ""
        self.outages = 0  # so many of the next requests are answered with 503
        self._servers = [_Server(self, "hub"), _Server(self, "cdn")]
        ports = [server.server_port for server in self._servers]
        # Another host name too: the client tells a CDN from the Hub by it.
        self.endpoint, self.cdn = f"http://127.0.0.1:{ports[0]}", f"http://localhost:{ports[1]}"

    def __enter__(self) -> Self:
        for server in self._servers:
            Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def publish(
        self,
        repo_id: str,
        files: Path | Mapping[str, bytes],
        *,
        ref: str = "main",
        private: bool = False,
        gated: bool = False,
    ) -> str:
        """Commit a folder, or files by name, to a branch or tag. Returns the commit's sha."""
        if isinstance(files, Path):
            files = {str(path.relative_to(files)): path.read_bytes() for path in files.rglob("*") if path.is_file()}
        repo = self.repos.setdefault(repo_id, Repo(private=private, gated=gated))
        self.large |= {digest(content): content for name, content in files.items() if is_large(name)}
        return repo.commit(files, ref)

    def environment(self, home: Path) -> dict[str, str]:
        """What a process needs in its environment to use this Hub, with a cache of its own."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }

    def asked(self, ending: str = "") -> list[Request]:
        """The requests for repositories and files, and nothing else that the client likes to know."""
        ours = [r for r in self.requests if r.host == "cdn" or "/resolve/" in r.path or "/api/models/" in r.path]
        return [request for request in ours if request.path.endswith(ending)]

    def served(self) -> int:
        """Bytes of files that were sent, listings not counted."""
        return sum(r.served for r in self.requests if r.host == "cdn" or "/resolve/" in r.path)


def is_large(name: str) -> bool:
    return name.endswith((".safetensors", ".bin", ".pt"))


def entry(file: str, content: bytes) -> dict[str, object]:
    """One line of a listing of a dataset's files."""
    return {"type": "file", "path": file, "size": len(content), "oid": digest(content)}


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class _Server(LocalServer):
    def __init__(self, hub: FakeHub, role: str) -> None:
        super().__init__(_Handler)
        self.hub = hub
        self.role = role


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # saves 40 ms an answer
    server: _Server

    def log_message(self, *args: object) -> None:
        """Nothing on stderr: the log is ``FakeHub.requests``."""

    def route(self) -> None:
        self.hub, self.path = self.server.hub, unquote(urlsplit(self.path).path)
        self.body = body_of(self)
        try:
            if self.hub.mood == "unavailable" or self.hub.outages > 0:
                self.hub.outages -= 1
                raise RefusalError(503)
            if self.hub.mood == "silent":
                time.sleep(0.5)
            if self.hub.mood == "web page":
                return self.answer(200, b"<html>Please sign in to this network.</html>", {"Content-Type": "text/html"})
            for method, pattern, action in ROUTES[self.server.role]:
                if self.command in method.split() and (match := re.fullmatch(pattern, self.path)):
                    return action(self, **match.groupdict())
            raise RefusalError(404)
        except RefusalError as no:
            headers = {"X-Error-Code": no.code, "X-Error-Message": no.message, **no.headers}
            self.answer(no.status, no.body, {key: value for key, value in headers.items() if value})

    do_GET = do_HEAD = do_POST = do_PUT = route  # noqa: N815

    # Who asks, and for what

    def user(self) -> str | None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in ("", MEMBER, STRANGER):
            raise RefusalError(401, message="Invalid credentials in Authorization header")
        return token or None

    def writer(self) -> None:
        if self.user() != MEMBER:
            raise RefusalError(403 if self.user() else 401, message="You may not write here")

    def repo(self, name: str) -> Repo:
        found = self.hub.repos.get(name)
        if found is None or (found.private and self.user() != MEMBER):
            raise RefusalError(404 if self.user() else 401, "RepoNotFound", "Repository not found")
        return found

    def commit_of(self, repo: Repo, revision: str) -> str:
        sha = repo.refs.get(revision, revision)
        if sha not in repo.commits:
            raise RefusalError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return sha

    # Answers

    def answer(self, status: int, body: bytes, headers: Mapping[str, str], *, length: int | None = None) -> None:
        served = b"" if self.command == "HEAD" else body
        self.hub.requests.append(
            Request(
                host=self.server.role,
                method=self.command,
                path=self.path,
                range=self.headers.get("Range"),
                token=self.headers.get("Authorization"),
                status=status,
                served=len(served),
            )
        )
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(served)
        self.close_connection = length is not None

    def json(self, content: object) -> None:
        self.answer(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def content(self, data: bytes, headers: Mapping[str, str]) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None or self.hub.mood == "no ranges":
            return self.answer(200, data, headers)
        start = int(asked[1])
        part = data[start : int(asked[2]) + 1 if asked[2] else None]
        if not part:
            raise RefusalError(416)
        about = {**headers, "Content-Range": f"bytes {start}-{start + len(part) - 1}/{len(data)}"}
        if self.hub.mood == "short":
            return self.answer(206, part[:-1], about)
        if self.hub.mood == "truncated":
            return self.answer(206, part[: len(part) // 2], about, length=len(part))
        return self.answer(206, part, about)

    # Reading

    def show_repo(self, name: str, revision: str = "main") -> None:
        repo = self.repo(name)
        sha = self.commit_of(repo, revision)
        files = [{"rfilename": file, "size": len(content)} for file, content in repo.commits[sha].items()]
        self.json({"id": name, "sha": sha, "private": repo.private, "siblings": files})

    def show_dataset(self, name: str, revision: str = "main") -> None:
        self.show_repo(f"datasets/{name}", revision)

    def list_dataset(self, name: str, revision: str, folder: str | None) -> None:
        repo = self.repo(f"datasets/{name}")
        files = repo.commits[self.commit_of(repo, revision)]
        inside = [file for file in files if folder is None or file.startswith(f"{folder}/")]
        if not inside:
            raise RefusalError(404, "EntryNotFound", f"{folder} does not exist")
        self.json([entry(file, files[file]) for file in inside])

    def show_file(self, name: str, revision: str, file: str) -> None:
        repo = self.repo(name)
        if repo.gated and self.user() != MEMBER:
            raise RefusalError(403 if self.user() else 401, "GatedRepo", "Access to this model is restricted")
        sha = self.commit_of(repo, revision)
        if file not in repo.commits[sha]:
            raise RefusalError(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": sha})
        data = repo.commits[sha][file]
        about = {"X-Repo-Commit": sha, "ETag": f'"{digest(data)}"', "Accept-Ranges": "bytes"}
        if not is_large(file):
            return self.content(data, about)
        linked = {"X-Linked-Size": str(len(data)), "X-Linked-Etag": f'"{digest(data)}"'}
        return self.answer(302, b"", {**about, **linked, "Location": f"{self.hub.cdn}/{digest(data)}"})

    def show_large(self, oid: str) -> None:
        self.content(self.hub.large[oid], {"ETag": f'"{oid}"'})

    def who_am_i(self) -> None:
        if self.user() is None:
            raise RefusalError(401)
        self.json({"name": "member" if self.user() == MEMBER else "stranger", "type": "user"})

    # Writing

    def create_repo(self) -> None:
        self.writer()
        wanted = json.loads(self.body)
        name = f"{wanted['organization'] or 'member'}/{wanted['name']}"
        if name in self.hub.repos:
            raise RefusalError(409, body=json.dumps({"url": f"{self.hub.endpoint}/{name}"}).encode())
        # What huggingface_hub 1 and 2 call the same wish.
        private = wanted.get("private") or wanted.get("visibility") == "private"
        self.hub.publish(name, {".gitattributes": b"*.safetensors filter=lfs\n"}, private=private)
        self.json({"url": f"{self.hub.endpoint}/{name}", "name": name})

    def sort_upload(self, name: str, revision: str) -> None:
        self.writer()
        paths = [file["path"] for file in json.loads(self.body)["files"]]
        modes = [{"path": p, "uploadMode": "lfs" if is_large(p) else "regular", "shouldIgnore": False} for p in paths]
        self.json({"files": modes})

    def plan_upload(self, name: str) -> None:
        self.writer()
        objects: list[dict[str, Any]] = json.loads(self.body)["objects"]
        for one in objects:
            if one["oid"] not in self.hub.large:
                verify = f"{self.hub.endpoint}/{name}.git/info/lfs/verify"
                one["actions"] = {"upload": {"href": f"{self.hub.cdn}/{one['oid']}"}, "verify": {"href": verify}}
        self.json({"transfer": "basic", "objects": objects})

    def take_large(self, oid: str) -> None:
        if digest(self.body) != oid:
            raise RefusalError(400, message="the content is not what its name says")
        self.hub.large[oid] = self.body
        self.json({})

    def verify_upload(self, name: str) -> None:
        wanted = json.loads(self.body)
        if len(self.hub.large[wanted["oid"]]) != wanted["size"]:
            raise RefusalError(422)
        self.json({})

    def take_commit(self, name: str, revision: str) -> None:
        self.writer()
        repo = self.repo(name)
        sha = self.commit_of(repo, revision)
        files = dict(repo.commits[sha])
        for line in map(json.loads, self.body.splitlines()):
            value = line["value"]
            if line["key"] == "header" and value.get("parentCommit", sha) != sha:
                raise RefusalError(412, message="A commit has happened since. Please refresh and try again.")
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            if line["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
            if line["key"] == "deletedFile":
                del files[value["path"]]
        new = repo.commit(files, revision)
        self.json({"commitUrl": f"{self.hub.endpoint}/{name}/commit/{new}", "commitOid": new})


_NAME = r"(?P<name>[^/]+/[^/]+)"
_REPO = r"(?P<name>(datasets/)?[^/]+/[^/]+)"  # datasets are published under `datasets/org/name`
ROUTES: Mapping[str, list[tuple[str, str, Callable[..., None]]]] = {
    "hub": [
        ("GET", f"/api/models/{_NAME}", _Handler.show_repo),
        ("GET", f"/api/models/{_NAME}/revision/(?P<revision>.+)", _Handler.show_repo),
        ("GET", f"/api/datasets/{_NAME}", _Handler.show_dataset),
        ("GET", f"/api/datasets/{_NAME}/revision/(?P<revision>[^/]+)", _Handler.show_dataset),
        ("GET", f"/api/datasets/{_NAME}/tree/(?P<revision>[^/]+)(/(?P<folder>.+))?", _Handler.list_dataset),
        ("GET HEAD", f"/{_REPO}/resolve/(?P<revision>.+)/(?P<file>[^/]+)", _Handler.show_file),
        ("GET", "/api/whoami-v2", _Handler.who_am_i),
        ("POST", "/api/repos/create", _Handler.create_repo),
        ("POST", "/api/validate-yaml", lambda request: request.json({"errors": [], "warnings": []})),
        ("POST", f"/api/models/{_NAME}/preupload/(?P<revision>.+)", _Handler.sort_upload),
        ("POST", f"/{_NAME}.git/info/lfs/objects/batch", _Handler.plan_upload),
        ("POST", f"/{_NAME}.git/info/lfs/verify", _Handler.verify_upload),
        ("POST", f"/api/models/{_NAME}/commit/(?P<revision>.+)", _Handler.take_commit),
    ],
    "cdn": [
        ("GET HEAD", "/(?P<oid>[0-9a-f]{64})", _Handler.show_large),
        ("PUT", "/(?P<oid>[0-9a-f]{64})", _Handler.take_large),
    ],
}
