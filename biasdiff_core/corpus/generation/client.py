"""One request to an OpenAI-compatible endpoint. Only this module imports the optional package openai."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from biasdiff_core.errors import ConfigError, MissingDependency

MAX_CHARACTERS = 1_000_000  # of an answer; more is no list of sentences
MESSAGE_CHARACTERS = 300


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer, or the text of a refusal. Tokens are None where the server does not say."""

    text: str
    finish: str
    served: str
    prompt_tokens: int | None
    completion_tokens: int | None


@dataclass(frozen=True, kw_only=True)
class Failure:
    """No answer. `status`: HTTP, None without one; 200 for a body that is no chat completion. `retry_after`: seconds, where it says.

    `reached`: whether the server may have worked on it.
    """

    status: int | None
    message: str
    retry_after: float | None = None
    reached: bool = True


def _package() -> Any:
    try:
        import openai
    except ImportError as error:
        raise MissingDependency("openai", "Generating probes with a model", "pip install 'biasdiff[generate]'") from error
    return openai


class Client:
    """An endpoint: OPENAI_BASE_URL with OPENAI_API_KEY. Never tries again by itself: each try counts against the budget.

    Raises MissingDependency without the extra `generate`, ConfigError without a key or for a base URL that is none.
    """

    def __init__(self) -> None:
        self._openai = _package()
        try:
            self._client = self._openai.OpenAI(max_retries=0)
        except self._openai.OpenAIError as error:
            raise ConfigError(
                "No endpoint is set: OPENAI_API_KEY is missing.",
                "Set it, and OPENAI_BASE_URL for a server other than OpenAI's (a local one takes any key); --template needs no model.",
            ) from error
        if not self.endpoint.startswith(("http://", "https://")):
            raise ConfigError(f"OPENAI_BASE_URL is {self.endpoint!r}.", "Begin it with http:// or https://, e.g. http://127.0.0.1:8000/v1.")

    @property
    def endpoint(self) -> str:
        """Where requests go, without user, password or query."""
        url = urlsplit(str(self._client.base_url))
        return f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path.rstrip('/')}"

    def complete(self, body: Mapping[str, Any]) -> Reply | Failure:
        """Send `body` (model, messages, …) to /chat/completions."""
        try:
            text = self._client.chat.completions.with_raw_response.create(**body).text
        except self._openai.APIStatusError as error:
            wait = retry_after(error.response.headers.get("retry-after"), datetime.now(UTC))
            said = error.message.removeprefix(f"Error code: {error.status_code} - ")
            return Failure(status=error.status_code, message=_line(said), retry_after=wait)
        except self._openai.APIConnectionError as error:
            # The HTTP library's own class differs between versions of openai; a refused connection is `ConnectError` in all.
            cause = error.__cause__ or error
            return Failure(status=None, message=_line(f"{type(cause).__name__}: {cause}"), reached=type(cause).__name__ != "ConnectError")
        return read_completion(text)


def read_completion(body: str) -> Reply | Failure:
    """The first choice of a chat completion; a Failure with status 200 when `body` is none."""
    try:
        record = json.loads(body)
        choice = record["choices"][0]
        message = choice["message"]
        text = message.get("content") or message.get("refusal") or ""
        usage = record.get("usage") or {}
        if not isinstance(text, str) or len(text) > MAX_CHARACTERS:
            raise TypeError(f"content of type {type(text).__name__}, {len(text)} characters")
        return Reply(
            text=text,
            finish=_line(choice.get("finish_reason") or ""),
            served=_line(record.get("model") or ""),
            prompt_tokens=_count(usage.get("prompt_tokens")),
            completion_tokens=_count(usage.get("completion_tokens")),
        )
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        return Failure(status=200, message=_line(f"the answer is no chat completion ({type(error).__name__}: {error})"))


def retry_after(header: str | None, now: datetime) -> float | None:
    """Seconds that a Retry-After header asks for, as a number or an HTTP date; None where it says nothing that can be meant."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            until = parsedate_to_datetime(header)
        except ValueError:
            return None
        seconds = (until.replace(tzinfo=until.tzinfo or UTC) - now).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _line(message: object) -> str:
    """One line of what a server says, shortened."""
    return " ".join(str(message).split())[:MESSAGE_CHARACTERS]
