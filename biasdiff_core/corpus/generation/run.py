"""A run: ask, keep, judge, until there are pairs enough or the budget is spent. The same call goes on where a killed one was."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from biasdiff_core.config.file import canonical
from biasdiff_core.config.generation import GenerationConfig
from biasdiff_core.corpus.generation.client import Client, Failure, Reply
from biasdiff_core.corpus.generation.cost import Cost, estimated_tokens, expected_cost, money, requests_of
from biasdiff_core.corpus.generation.judge import Judge, ProbePair
from biasdiff_core.corpus.generation.output import JudgedRow, log_path
from biasdiff_core.corpus.generation.prompt import Prompt, Question
from biasdiff_core.corpus.generation.responses import Attempt, Outcome, ResponseLog
from biasdiff_core.errors import ConfigError, DataError
from biasdiff_core.results import Progress, ProgressCallback, no_progress
from biasdiff_core.workspace.artefacts import digest_json

log = logging.getLogger(__name__)

TRIES = 6  # of one question, before giving up
BARREN = 5  # answers in a row without an accepted pair, after which going on would only cost
LONGEST_WAIT = 600.0  # seconds; a server that asks for more is asked again by the next run
AGAIN = frozenset({None, 200, 408, 409, 425, 429})  # besides 5xx
MAY_MEAN_FORMAT = frozenset({400, 415, 422, 501})


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a run has used so far. `structured`: whether answers came by JSON schema, None before any answer.

    `estimated`: answers whose tokens the server did not say. `money`: by the prices given, else None. `stopped`: why it is short of
    the pairs asked for, empty when it is not.
    """

    requests: int
    failed: int
    answers: int
    prompt_tokens: int
    completion_tokens: int
    estimated: int
    money: float | None
    structured: bool | None
    stopped: str

    def sentence(self) -> str:
        """For people."""
        spent = f"{self.prompt_tokens:,} prompt and {self.completion_tokens:,} answer tokens"
        spent += f" ({self.estimated} of {self.answers} answers by estimate)" if self.estimated else ""
        spent += "" if self.money is None else f", price {self.money:.4f}"
        form = "" if self.structured is None else f"; answers {'by JSON schema' if self.structured else 'as plain text'}"
        short = f"; stopped: {self.stopped}" if self.stopped else ""
        return f"Used: {requests_of(self.requests)}, {self.failed} of them failed, {spent}{form}{short}."


class Generation:
    """The run behind the probe file `out`, with whatever its log of responses holds already judged; nothing is sent before `run`.

    `references`: texts by name that no pair may nearly equal. `sleep`, `clock`: seconds. Raises ConfigError when the log was made with
    other settings, ArtefactError when it is none, DataError for examples that cannot be read.
    """

    def __init__(
        self,
        config: GenerationConfig,
        out: Path,
        references: Mapping[str, Iterable[str]],
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self.prompt = Prompt(config)
        self.rows: list[JudgedRow] = []
        self.stopped = ""
        self._judge = Judge(config.rules, {**references, "the prompt's examples": self.prompt.example_texts})
        self._sleep, self._clock = sleep, clock
        self._earliest = self._clock()
        self._log = ResponseLog(log_path(out), _settings(config, self.prompt))
        for attempt in self._log.attempts:
            self._take(attempt)

    @property
    def accepted(self) -> int:
        """Number of pairs accepted so far."""
        return sum(isinstance(row.found, ProbePair) for row in self.rows)

    @property
    def finished(self) -> bool:
        """Whether there are as many pairs as asked for; `run` sends nothing then."""
        return self.accepted >= self.config.count

    def cost(self) -> Cost:
        """What is still to be spent."""
        return expected_cost(
            self.config.budget,
            missing=self.config.count - self.accepted,
            prompt_tokens=estimated_tokens(self._question().characters),
            requests_made=len(self._log.attempts),
            tokens_used=self._tokens_used(),
        )

    def run(self, client: Client, progress: ProgressCallback = no_progress) -> None:
        """Ask until finished, or until `stopped` says why not.

        Raises ConfigError for a request that the server refuses for good, DataError when it gave no answer `TRIES` times running.
        """
        failures = barren = 0
        while True:
            progress(Progress(stage="generate", done=min(self.accepted, self.config.count), total=self.config.count, unit="pairs"))
            if self.finished:
                return
            question = self._question()
            self.stopped = self._why_stop(question, barren)
            if self.stopped:
                log.warning("stopped with %d of %d pairs: %s", self.accepted, self.config.count, self.stopped)
                return
            self._wait()
            reply = client.complete(self._body(question))
            attempt = self._attempt(question, reply, client.endpoint)
            self._log.append(attempt)
            if isinstance(reply, Reply):
                before = self.accepted
                self._take(attempt)
                failures, barren = 0, 0 if self.accepted > before else barren + 1
            elif attempt.outcome == "failed":
                failures += 1
                self._put_off(reply, failures)
            else:
                log.warning("the server refuses %s, so it is asked without: %s", attempt.outcome.removeprefix("no_"), reply.message)

    def summary(self) -> Summary:
        """The run so far, all its continuations together."""
        attempts = self._log.attempts
        answers = [attempt for attempt in attempts if attempt.outcome == "answer"]
        prompt_tokens, completion_tokens = (sum(getattr(a, name) for a in attempts) for name in ("prompt_tokens", "completion_tokens"))
        return Summary(
            requests=len(attempts),
            failed=sum(attempt.outcome == "failed" for attempt in attempts),
            answers=len(answers),
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            estimated=sum(attempt.estimated for attempt in answers),
            money=money(self.config.budget, prompt_tokens, completion_tokens),
            structured=answers[-1].structured if answers else None,
            stopped=self.stopped,
        )

    def _question(self) -> Question:
        """The next question: for the bias type asked for least often so far, of those the one with the fewest pairs."""
        answers = [attempt for attempt in self._log.attempts if attempt.outcome == "answer"]
        asked = Counter(attempt.bias_type for attempt in answers)
        found = Counter(row.found.bias_type for row in self.rows if isinstance(row.found, ProbePair))
        bias_type = min(self.config.rules.bias_types, key=lambda name: (asked[name], found[name]))
        return self.prompt.question(len(answers), bias_type, structured=not self._refused("no_format"))

    def _body(self, question: Question) -> dict[str, Any]:
        limit = "max_completion_tokens" if self._refused("no_max_tokens") else "max_tokens"
        body: dict[str, Any] = {
            "model": self.config.model,
            "messages": question.messages,
            limit: self.config.budget.answer_tokens,
        }
        if question.response_format is not None:
            body["response_format"] = question.response_format
        if self.config.temperature is not None:
            body["temperature"] = self.config.temperature
        return body

    def _refused(self, outcome: Outcome) -> bool:
        return any(attempt.outcome == outcome for attempt in self._log.attempts)

    def _tokens_used(self) -> int:
        return sum(attempt.prompt_tokens + attempt.completion_tokens for attempt in self._log.attempts)

    def _why_stop(self, question: Question, barren: int) -> str:
        budget, used = self.config.budget, self._tokens_used()
        if len(self._log.attempts) >= budget.max_requests:
            return f"all {budget.max_requests} requests of the budget are made"
        if used + estimated_tokens(question.characters) + budget.answer_tokens > budget.max_tokens:
            return f"{used} of {budget.max_tokens} tokens are used, and another request might pass that"
        return f"{barren} answers in a row gave no pair" if barren >= BARREN else ""

    def _attempt(self, question: Question, reply: Reply | Failure, endpoint: str) -> Attempt:
        common: dict[str, Any] = {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "endpoint": endpoint,
            "bias_type": question.bias_type,
            "structured": question.response_format is not None,
        }
        prompt_tokens = estimated_tokens(question.characters)
        if isinstance(reply, Reply):
            known = reply.prompt_tokens is not None and reply.completion_tokens is not None
            return Attempt(
                outcome="answer",
                text=reply.text,
                finish=reply.finish,
                served=reply.served,
                prompt_tokens=prompt_tokens if reply.prompt_tokens is None else reply.prompt_tokens,
                completion_tokens=estimated_tokens(len(reply.text)) if reply.completion_tokens is None else reply.completion_tokens,
                estimated=not known,
                **common,
            )
        detail = f"{reply.status or 'no connection'}: {reply.message}"
        outcome = self._outcome(question, reply)
        if outcome == "failed" and reply.status in (None, 200) and reply.reached:
            # A cut or garbled answer may have been paid for in full.
            limit = self.config.budget.answer_tokens
            return Attempt(outcome=outcome, detail=detail, prompt_tokens=prompt_tokens, completion_tokens=limit, estimated=True, **common)
        return Attempt(outcome=outcome, detail=detail, **common)

    def _outcome(self, question: Question, failure: Failure) -> Outcome:
        """What a failure means. Servers word a refused `response_format` in many ways, so its status is enough: it is asked for once."""
        if failure.status == 400 and "max_completion_tokens" in failure.message and not self._refused("no_max_tokens"):
            return "no_max_tokens"
        if failure.status in MAY_MEAN_FORMAT and question.response_format is not None:
            return "no_format"
        return "failed"

    def _wait(self) -> None:
        """Until the next request may be sent."""
        if (wait := self._earliest - self._clock()) > 0:
            self._sleep(wait)
        self._earliest = self._clock() + 60 / self.config.budget.per_minute

    def _put_off(self, failure: Failure, failures: int) -> None:
        """Have the next request wait as long as the server asks, else twice as long as after the failure before. Raises as `run`."""
        status = "no connection" if failure.status is None else f"status {failure.status}"
        if failure.status not in AGAIN and (failure.status or 0) < 500:
            raise ConfigError(
                f"The endpoint refused the request ({status}: {failure.message}).",
                "Correct OPENAI_BASE_URL, OPENAI_API_KEY or the model's name; what was answered before is kept.",
            )
        wait = 2.0 ** (failures - 1) if failure.retry_after is None else failure.retry_after
        if failures >= TRIES or wait > LONGEST_WAIT:
            tried = f"{failures} tries" if failures > 1 else "1 try"
            raise DataError(
                f"The endpoint gave no answer in {tried} ({status}: {failure.message}; next try in {wait:.0f} s).",
                "What was answered before is kept: the same command goes on from there.",
            )
        log.warning("%s: %s; trying again in %.0f s", status, failure.message, wait)
        self._earliest = max(self._earliest, self._clock() + wait)

    def _take(self, attempt: Attempt) -> None:
        """Judge the rows of an answer."""
        if attempt.outcome == "answer":
            for candidate in self.prompt.parse(attempt.text):
                self.rows.append(JudgedRow(found=self._judge.judge(candidate), created=attempt.created))


def _settings(config: GenerationConfig, prompt: Prompt) -> dict[str, Any]:
    """What the answers depend on, besides the server: a log is taken up only by a run that would ask the same."""
    record = canonical(config)
    budget = record.pop("budget")
    del record["count"]
    return {
        **record,
        "answer_tokens": budget["answer_tokens"],
        "prompt": prompt.version,
        "examples": digest_json(prompt.example_texts),
    }
