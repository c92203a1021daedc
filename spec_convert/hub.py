"""A repository on the Hub, read in small ranges so that looking at a checkpoint does not download it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from spec_convert.errors import Unreadable
from spec_convert.hub_errors import explained, transfer_failed
from spec_convert.rules import found

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BLOCK = 64 * 1024  # holds the header of almost every draft, so that one request reads it
KEPT = 16  # blocks: a file is opened several times (what is it? what does it hold?) and asked for once
RETRIES = 3


class HubRepo:
    """The files of one repository at one commit. Implements ``spec_convert.tensor.Files``.

    A branch or tag is resolved once, so that a push in the meantime cannot mix two versions of a checkpoint.
    """

    def __init__(self, repo_id: str, revision: str | None) -> None:
        self.repo_id = repo_id
        self._asked = revision or "main"
        self._blocks: dict[tuple[str, int], bytes] = {}
        self.revision, self._sizes = _listing(repo_id, self._asked)

    @property
    def label(self) -> str:
        return f"{self.repo_id}@{self.revision[:7]}"

    def sizes(self) -> Mapping[str, int]:
        return self._sizes

    def open(self, name: str) -> BinaryIO:
        self._require(name)
        cached = self._cached(name)
        return cached.open("rb") if cached else io.BufferedReader(_RemoteFile(self, name))

    def path(self, name: str) -> Path:
        from huggingface_hub import hf_hub_download

        self._require(name)
        if cached := self._cached(name):
            return cached
        with explained(f"{self.label}/{name}"):
            # Asked for by its branch first: so the cache learns which commit the branch is, and works offline later.
            path = Path(hf_hub_download(self.repo_id, name, revision=self._asked))
            if path.parent.name == self.revision:
                return path
            return Path(hf_hub_download(self.repo_id, name, revision=self.revision))

    def block(self, name: str, number: int) -> bytes:
        """One aligned block of a file, remembered for a while."""
        key = (name, number)
        if key not in self._blocks:
            while len(self._blocks) >= KEPT:
                del self._blocks[next(iter(self._blocks))]
            start = number * BLOCK
            self._blocks[key] = self.fetch(name, start, min(start + BLOCK, self._sizes[name]))
        return self._blocks[key]

    def fetch(self, name: str, start: int, stop: int) -> bytes:
        """The bytes [start, stop) of a file, by one range request."""
        from huggingface_hub import constants, hf_hub_url
        from huggingface_hub.utils import (  # type: ignore[attr-defined]
            build_hf_headers,
            hf_raise_for_status,
            http_stream_backoff,
        )

        where = f"{self.label}/{name}"
        url = hf_hub_url(self.repo_id, name, revision=self.revision)
        # Compressed answers would be ranges of something else.
        headers = build_hf_headers() | {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
        request = http_stream_backoff(
            "GET",
            url,
            headers=headers,
            timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
            max_retries=RETRIES,
            base_wait_time=0.25,
            # Not 429: the Hub then asks for minutes of patience, and a message serves better than a silent wait.
            retry_on_status_codes=(500, 502, 503, 504),
        )
        with explained(where), request as response:
            hf_raise_for_status(response)
            whole = response.status_code == 200 and (start, stop) == (0, self._sizes[name])
            part = response.headers.get("Content-Range", "").startswith(f"bytes {start}-{stop - 1}/")
            if not whole and not (response.status_code == 206 and part):
                raise transfer_failed(where, f"the server ignores the range request for bytes {start} to {stop - 1}")
            return _body(response, stop - start, where)

    def _require(self, name: str) -> None:
        if name not in self._sizes:
            message = f"has no file {name}"
            raise Unreadable(found("hub-not-found", where=self.label, message=message, hint="Check the name."))

    def _cached(self, name: str) -> Path | None:
        from huggingface_hub import try_to_load_from_cache

        with explained(f"{self.label}/{name}"):
            cached = try_to_load_from_cache(self.repo_id, name, revision=self.revision)
        return Path(cached) if isinstance(cached, str) else None


class _RemoteFile(io.RawIOBase):
    """One file of a repository as a seekable stream that fetches only what is read."""

    def __init__(self, repo: HubRepo, name: str) -> None:
        self._repo = repo
        self._name = name
        self._size = repo.sizes()[name]
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        target = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence] + offset
        if target < 0:
            raise ValueError(f"cannot seek to {target}, before the start of {self._name}")
        self._at = target
        return target

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        wanted = max(0, min(len(view), self._size - self._at))
        if wanted > BLOCK:
            data = self._repo.fetch(self._name, self._at, self._at + wanted)
        elif wanted:
            number, skip = divmod(self._at, BLOCK)
            data = self._repo.block(self._name, number)[skip : skip + wanted]
        else:
            data = b""
        view[: len(data)] = data
        self._at += len(data)
        return len(data)


def _body(response: Any, size: int, where: str) -> bytes:
    """What an answer holds, if that is exactly ``size`` bytes. Never reads much more."""
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    body = bytearray()
    try:
        for chunk in response.iter_raw():
            body += chunk
            if len(body) > size:
                break
    except HTTPError as error:
        # Not left to the client: its retry loop cannot start again in the middle of a body.
        raise transfer_failed(where, f"the answer broke off after {len(body)} bytes ({error})") from error
    if len(body) != size:
        raise transfer_failed(where, f"{size} bytes were asked for, {len(body)} came")
    return bytes(body)


def _listing(repo_id: str, revision: str) -> tuple[str, dict[str, int]]:
    """The commit that a revision means, and the size of every file at its root."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import OfflineModeIsEnabled

    where = f"{repo_id}@{revision}"
    with explained(where):
        try:
            timeout = constants.HF_HUB_ETAG_TIMEOUT
            info = HfApi().model_info(repo_id, revision=revision, files_metadata=True, timeout=timeout)
        except OfflineModeIsEnabled:
            return _cached_listing(repo_id, revision)
    sizes = {file.rfilename: file.size for file in info.siblings or () if "/" not in file.rfilename}
    known = {name: size for name, size in sorted(sizes.items()) if size is not None}
    if info.sha is None or len(known) < len(sizes):
        raise transfer_failed(where, "the server does not tell the commit and the size of every file")
    return info.sha, known


def _cached_listing(repo_id: str, revision: str) -> tuple[str, dict[str, int]]:
    from huggingface_hub import snapshot_download

    # No pattern: a snapshot counts as complete when it holds what was asked for, and we take what is there.
    folder = Path(snapshot_download(repo_id, revision=revision, local_files_only=True, allow_patterns=[]))
    return folder.name, {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file()}


def check_push(repo_id: str) -> None:
    """Fail now, rather than after an hour of conversion, when the id is no id or nobody is signed in."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    with explained(repo_id):
        validate_repo_id(repo_id)
        HfApi().whoami()


def push(folder: Path, repo_id: str) -> str:
    """Upload a folder as one commit, so that nobody ever downloads half of it. Returns the commit's address.

    A new repository is private: publishing is a decision of its own. An existing one keeps its visibility and its
    files, except weights that the folder does not hold: old shards beside new weights would be loaded with them.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    names = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    with explained(repo_id):
        api = HfApi()
        repo_id = api.create_repo(repo_id, private=True, exist_ok=True).repo_id
        there = HubRepo(repo_id, None)
        stale = [name for name in there.sizes() if _is_weights(name) and name not in names]
        commit = api.create_commit(
            repo_id,
            [CommitOperationDelete(path_in_repo=name) for name in stale]
            + [CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in names.items()],
            commit_message="Add a draft converted by spec-convert",
            # Refused by the Hub when somebody else committed since the listing.
            parent_commit=there.revision,
        )
    return commit.commit_url


def _is_weights(name: str) -> bool:
    return name.endswith((".safetensors", ".safetensors.index.json"))
