"""Everything that can go wrong between this machine and the Hub, each as one finding that says what to do next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from spec_convert.errors import Unreadable
from spec_convert.rules import found

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

Explanation = tuple[str, str, str]  # rule, message, hint

_SIGN_IN = "sign in with `hf auth login`, or set HF_TOKEN to a token that may"
_NETWORK = "Check the network, the proxy and HF_ENDPOINT. HF_HUB_OFFLINE=1 uses what is cached; a folder always works."
_AGAIN = "Run again later. If it persists, see whether HF_ENDPOINT is a Hub, or download the files and give the folder."


@contextmanager
def explained(where: str) -> Iterator[None]:
    """Turn whatever the Hub's client raises in the block into ``Unreadable``. Only calls of the client go inside."""
    # The base of every transport error, of httpx or of httpx2: whichever this client is built on.
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    try:
        yield
    except (HTTPError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        # The client wraps the reason when it has looked into its cache in vain, or when an upload thread fails.
        wrapped = isinstance(error, (FileNotFoundError, RuntimeError)) and error.__cause__ is not None
        rule, message, hint = _explain(where, error.__cause__ if wrapped else error)
        raise Unreadable(found(rule, where=where, message=message, hint=hint)) from error


def transfer_failed(where: str, message: str) -> Unreadable:
    return Unreadable(found("hub-transfer", where=where, message=message, hint=_AGAIN))


def _explain(where: str, error: BaseException | None) -> Explanation:
    from huggingface_hub import constants, errors

    match error:
        case errors.GatedRepoError():
            message = "the repository is gated: its files are given only to people who accepted its conditions"
            page = f"{constants.ENDPOINT}/{where.partition('@')[0]}"
            explanation = ("hub-gated", message, f"Accept them at {page}, then {_SIGN_IN} read it.")
        case errors.RepositoryNotFoundError():
            explanation = _not_found()
        case errors.RevisionNotFoundError():
            message = "the repository exists, but has no such branch, tag or commit"
            explanation = ("hub-not-found", message, "Check what follows the @; without it, the branch main is read.")
        case errors.LocalTokenNotFoundError():
            explanation = ("hub-unauthorised", "nobody is signed in on this machine", f"First {_SIGN_IN} write there.")
        case errors.HFValidationError():
            message = "this is no id of the Hub, which has letters, digits, `-`, `_`, `.` and one `/`"
            explanation = ("hub-not-found", message, "Write the id as org/name.")
        case errors.OfflineModeIsEnabled() | errors.LocalEntryNotFoundError():
            message = "HF_HUB_OFFLINE is set, and the cache on this machine does not hold this"
            hint = "Unset HF_HUB_OFFLINE and run again, or give a folder on this machine."
            explanation = ("hub-no-network", message, hint)
        case errors.HfHubHTTPError():
            explanation = _answered(error)
        case errors.HTTPError():  # type: ignore[attr-defined]
            message = f"the connection to {constants.ENDPOINT} failed ({type(error).__name__}: {_line(error)})"
            explanation = ("hub-no-network", message, _NETWORK)
        case ValueError() | KeyError() | TypeError():
            # A web page or foreign JSON, which the client takes apart without checking.
            message = f"what came is no answer of a Hub ({type(error).__name__}: {_line(error)})"
            explanation = ("hub-transfer", message, _AGAIN)
        case _:
            explanation = ("hub-transfer", f"the transfer failed ({type(error).__name__}: {_line(error)})", _AGAIN)
    return explanation


def _not_found() -> Explanation:
    from huggingface_hub import get_token

    who = "it is private and your token may not see it" if get_token() else "it is private and nobody is signed in"
    hint = f"Check the spelling. If it is private, {_SIGN_IN} read it. If you mean a folder, check the path."
    return "hub-not-found", f"the Hub has no such repository, or {who}", hint


def _answered(error: HfHubHTTPError) -> Explanation:
    status = error.response.status_code
    message = f"the Hub answers {status}: {_line(error.server_message or error.response.reason_phrase)}"
    if status in (401, 403):
        return "hub-unauthorised", message, f"Check the id, then {_SIGN_IN} do this."
    return "hub-transfer", message, _AGAIN


def _line(text: object) -> str:
    """The first line: servers and clients like to add paragraphs."""
    return next(iter(str(text).strip().splitlines()), "no reason given")
