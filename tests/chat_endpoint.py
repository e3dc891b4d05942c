"""A server on this machine that speaks enough of /v1/chat/completions, and misbehaves as it is told."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.local_server import Handler, serving


@dataclass(frozen=True, kw_only=True)
class Says:
    """One response: status, body, headers; `cut` sends half of the body and closes; `before` is called first."""

    status: int = 200
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False
    before: Callable[[], object] = lambda: None


def completion(content: str | None, *, usage: tuple[int, int] | None = (100, 50), finish: str = "stop", **message: Any) -> Says:
    """A chat completion with this content; `usage`: tokens of prompt and answer."""
    record: dict[str, Any] = {
        "model": "served-model",
        "choices": [{"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": content, **message}}],
    }
    if usage is not None:
        record["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    return Says(body=json.dumps(record), headers={"Content-Type": "application/json"})


def refuses(status: int, message: str, **headers: str) -> Says:
    """An error in OpenAI's form; `Retry_After` in `headers` is sent as Retry-After."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Says(status=status, body=json.dumps({"error": {"message": message}}), headers={"Content-Type": "application/json", **named})


class Endpoint:
    """`says`: the responses still to be given, in order. `asked`: the bodies of the requests so far; `keys`: what they sent as key."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.says: list[Says] = []
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str] = []

    def will_say(self, *says: Says) -> None:
        self.says.extend(says)

    def prompts(self) -> Sequence[str]:
        """The last message of every request."""
        return [body["messages"][-1]["content"] for body in self.asked]


@contextmanager
def endpoint() -> Iterator[Endpoint]:
    """A running endpoint. A request that it has no response for is answered with status 418, which a client does not repeat."""

    class Completions(Handler):
        def do_POST(self) -> None:
            body = self.posted()
            if self.path != "/v1/chat/completions":
                self.send_error(404)
                return
            served.asked.append(json.loads(body))
            served.keys.append(self.headers["Authorization"])
            say = served.says.pop(0) if served.says else refuses(418, "nothing left to say")
            say.before()
            content = say.body.encode()
            self.begin(say.status, {**say.headers, "Content-Length": str(len(content))})
            self.wfile.write(content[: len(content) // 2] if say.cut else content)

    with serving(Completions) as address:
        served = Endpoint(f"{address}/v1")
        yield served
