"""What a server of OpenAI's protocol says in a response, and whether it asks for patience."""

from __future__ import annotations

import time
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from spec_convert.errors import UsageError

if TYPE_CHECKING:
    import httpx

LATER = (408, 409, 425, 429)  # of the 4xx, those that may be asked again
WORDS = 300  # characters of what a server says that are repeated


class RefusedByServer(UsageError):
    """A server will never take this request. ``words``: what it said, the status first."""

    def __init__(self, url: str, status: int, words: str) -> None:
        super().__init__(f"{url}: {words}", hint=_mend(status))
        self.status, self.words = status, words


def asks_for_patience(response: httpx.Response) -> bool:
    return response.status_code >= 500 or response.status_code in LATER


def retry_after(response: httpx.Response) -> float:
    """Seconds for which the server wants to be left alone; 0 when it does not say."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isdigit():
        return float(value)
    with suppress(ValueError):  # neither a number nor a date
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    return 0.0


def content(response: httpx.Response) -> dict[str, Any]:
    """The JSON object of a response. Raises RefusedByServer for any other one, with the server's words."""
    try:
        value = response.json()
    except ValueError:
        value = None
    if not response.is_success or not isinstance(value, dict):
        raise RefusedByServer(str(response.request.url), response.status_code, said(response))
    return value


def said(response: httpx.Response) -> str:
    """The status, and the message where there is one; one line."""
    try:
        value = response.json()
    except ValueError:
        value = response.text
    if isinstance(value, dict):
        value = value.get("error", value)
    words = value.get("message") or value.get("detail") if isinstance(value, dict) else value
    told = " ".join(str(words or response.reason_phrase).split())
    return f"{response.status_code} {told[:WORDS]}"


def reason(error: httpx.RequestError) -> str:
    """Why there is no response."""
    return " ".join(f"{type(error).__name__} {error}".split())


def _mend(status: int) -> str:
    if status in (401, 403):
        return "the server wants its key: set the environment variable OPENAI_API_KEY"
    if status == 404:
        return "give the address of a server of OpenAI's protocol, such as http://127.0.0.1:8000"
    return "the server refuses this request for good: its log may say more"
