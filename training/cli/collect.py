"""`spec-convert collect`: hidden states from running servers, or from files that a capture has left."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from spec_convert.errors import UsageError
from spec_convert.training.cli.capture import capture_options, show_captured
from spec_convert.training.cli.duration import patience_option


class SameFolder(click.ParamType[tuple[Path, Path]]):
    """`/server/dir=/local/dir`"""

    name = "folders"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Path, Path]:
        server, equals, local = str(value).partition("=")
        if not (equals and server.startswith("/") and local):
            self.fail(f"{value!r} is not of the form SERVER_DIR=LOCAL_DIR", param, ctx)
        if not Path(local).is_dir():
            self.fail(f"there is no folder {local} here", param, ctx)
        return Path(server), Path(local)


@click.command(short_help="Collect hidden states from running vLLM servers.")
@capture_options
@click.option(
    "--endpoint", "endpoints", metavar="URL", multiple=True,
    help="A server that captures, such as http://127.0.0.1:8000. Repeatable: all serve the same model.",
)  # fmt: skip
@click.option(
    "--concurrent-requests", "concurrency", metavar="N", type=click.IntRange(min=1), default=32, show_default=True,
    help="Over all servers.",
)  # fmt: skip
@patience_option
@click.option(
    "--storage-as", metavar="SERVER_DIR=LOCAL_DIR", type=SameFolder(),
    help="Where a folder of the server lies on this machine.",
)  # fmt: skip
@click.option("--keep-files", is_flag=True, help="Leave what the servers have written where it is.")
@click.option(
    "--files", "folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Instead of servers: files with hidden_states and token_ids.",
)  # fmt: skip
@click.option(
    "--filter-rank", "rank", metavar="R", type=click.IntRange(min=0),
    help="With --files: only those of this tensor-parallel rank, as their paths say.",
)  # fmt: skip
def collect(  # noqa: PLR0913  (each is a choice of the user's)
    *,
    data: Path,
    output: Path,
    verifier: str | None,
    layer_ids: tuple[int, ...] | None,
    endpoints: tuple[str, ...],
    concurrency: int,
    patience: float,
    storage_as: tuple[Path, Path] | None,
    keep_files: bool,
    folder: Path | None,
    rank: int | None,
    as_json: bool,
    **planned: Any,
) -> None:
    """Collect the verifier's hidden states of DATA, which `prepare` wrote, from servers that run it.

    A server is started with `spec-convert serve --capture MODEL`. It writes a file for every request, which is read and
    removed: its folder must be seen from here. The layers are those that it was told to capture.

    A server that is lost is left alone and tried again, and the others go on. What is killed goes on with the same
    command. Servers that want a key get that of the environment variable OPENAI_API_KEY.
    """
    from spec_convert.training.capture.collecting import collect_files, collect_from_servers
    from spec_convert.training.capture.running import CaptureRequest
    from spec_convert.training.capture.server_engine import Files
    from spec_convert.training.servers.endpoints import Endpoints
    from spec_convert.training.store.manifest import read_manifest
    from spec_convert.verifier import open_verifier

    _require_one_source(endpoints, folder, storage_as=storage_as, keep_files=keep_files, rank=rank)
    opened = open_verifier(verifier or read_manifest(data).tokenizer.name)
    request = CaptureRequest(data=data, output=output, verifier=opened, layer_ids=layer_ids or (), **planned)
    if folder is not None:
        captured = collect_files(request, folder, rank=rank)
    else:
        key = os.environ.get("OPENAI_API_KEY")
        servers = Endpoints(endpoints, concurrency=concurrency, patience=patience, api_key=key)
        server, local = storage_as or (Path("/"), Path("/"))
        captured = collect_from_servers(request, servers, Files(server=server, local=local, keep=keep_files))
    show_captured(captured, as_json=as_json)


def _require_one_source(
    endpoints: tuple[str, ...], folder: Path | None, *, rank: int | None, **of_servers: Any
) -> None:
    """Raises UsageError for no source, for two, and for options that mean nothing with the one."""
    if not endpoints and folder is None:
        raise UsageError(
            "no server is named",
            hint="start one: spec-convert serve --capture MODEL; then --endpoint http://127.0.0.1:8000",
        )
    if endpoints and folder is not None:
        raise UsageError("--endpoint and --files are two sources", hint="leave one of them out")
    if rank is not None and folder is None:
        raise UsageError(
            "--filter-rank is for --files: of several ranks, servers write the first alone", hint="leave it out"
        )
    for name, value in of_servers.items():
        if value and folder is not None:
            raise UsageError(f"--{name.replace('_', '-')} is for servers, not for --files", hint="leave it out")
