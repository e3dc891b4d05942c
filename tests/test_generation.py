"""Generated probes: a real server that misbehaves, hostile answers, budgets, kills; nothing is sent unasked, nothing answered is lost."""

from __future__ import annotations

import csv
import json
import math
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from biasdiff_core.cli import main
from biasdiff_core.config.data import ProbeConfig
from biasdiff_core.config.generation import BIAS_TYPES, Budget, GenerationConfig, PairRules
from biasdiff_core.corpus.demo import demo_path
from biasdiff_core.corpus.examples import Corpus, Probe, ProbeSet, TrainingExample
from biasdiff_core.corpus.export import FORMULA_STARTS
from biasdiff_core.corpus.generation.client import Client, Failure, read_completion, retry_after
from biasdiff_core.corpus.generation.cost import Cost, expected_cost
from biasdiff_core.corpus.generation.judge import Judge, ProbePair, Rejection, differing_span, is_english
from biasdiff_core.corpus.generation.output import COLUMNS, JudgedRow, log_path, rejected_path, write
from biasdiff_core.corpus.generation.overlap import OverlapIndex
from biasdiff_core.corpus.generation.parse import Candidate, csv_rows, json_rows
from biasdiff_core.corpus.generation.prompt import PAPER, Prompt
from biasdiff_core.corpus.generation.run import BARREN, TRIES, Generation
from biasdiff_core.corpus.generation.template import FRAMES, IDENTITIES, template_rows
from biasdiff_core.corpus.probes import leakage, read_probes
from biasdiff_core.errors import ArtefactError, ConfigError, DataError, MissingDependency
from tests.chat_endpoint import Endpoint, Says, completion, endpoint, refuses
from tests.reference.overlap_slow import overlap_slow

DATA = Path(os.environ.get("BIASDIFF_DATA", Path(__file__).resolve().parents[1].parent / "shared" / "data"))
PLENTY = Budget(per_minute=math.inf)


class Clock:
    """Time that passes only by sleeping; `slept`: how long, each time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    """A running endpoint that the environment names."""
    with endpoint() as running:
        monkeypatch.setenv("OPENAI_BASE_URL", running.url)
        monkeypatch.setenv("OPENAI_API_KEY", "a-key")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield running


def cells(number: int, bias_type: str = "age", **changed: Any) -> dict[str, Any]:
    """A sound pair; two numbers share 5 of their 17 words or fewer, far from a near-duplicate."""
    letters = random.Random(number)
    made = ["".join(letters.choices("abcdefghijklmnopqrstuvwxyz", k=8)) for _ in range(6)]
    text = "Older {} always {} {} near {} and {} their {}.".format(*made)
    return {"text": text, "twin": text.replace("Older", "Younger"), "bias_type": bias_type, **changed}


def pairs(*numbers: int, bias_type: str = "age") -> str:
    """An answer by the schema."""
    return json.dumps({"pairs": [cells(number, bias_type) for number in numbers]})


def generation(folder: Path, clock: Clock | None = None, budget: Budget = PLENTY, **options: Any) -> Generation:
    clock = clock or Clock()
    config = GenerationConfig(**{"model": "m", "count": 4, "rules": PairRules(bias_types=("age",)), "budget": budget, **options})
    return Generation(config, folder / "p.csv", {}, sleep=clock.sleep, clock=clock)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf8").splitlines()]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf8", newline="") as handle:
        return list(csv.DictReader(handle))


def reasons(found: Sequence[JudgedRow]) -> list[str]:
    return [row.found.reason for row in found if isinstance(row.found, Rejection)]


# --- what is asked and kept


def test_a_run_writes_probes_that_read_probes_reads(served: Endpoint, tmp_path: Path) -> None:
    served.will_say(completion(pairs(0, 1)), completion(pairs(2, 3)))
    run = generation(tmp_path)
    run.run(Client())
    write(run.rows, tmp_path / "p.csv", source="generated", model="m", prompt=run.prompt.version)
    probes, notes = read_probes(ProbeConfig(path=str(tmp_path / "p.csv"), twin_column="twin", bias_type_column="bias_type"))
    assert [(p.text, p.twin, p.bias_type) for p in probes] == [tuple(cells(i).values()) for i in range(4)]
    assert notes == []
    written = rows_of(tmp_path / "p.csv")
    assert tuple(written[0]) == COLUMNS
    assert {(row["group"], row["source"], row["model"], row["prompt"]) for row in written} == {("older", "generated", "m", "guided/1")}
    assert all(datetime.fromisoformat(row["created"]).tzinfo for row in written)
    assert run.finished and run.stopped == ""
    assert [body["model"] for body in served.asked] == ["m", "m"] and set(served.keys) == {"Bearer a-key"}
    used = run.summary()
    assert (used.requests, used.failed, used.prompt_tokens, used.completion_tokens, used.structured) == (2, 0, 200, 100, True)


def test_the_guided_prompt_shows_the_examples_chosen_of_the_type_asked_for(served: Endpoint, tmp_path: Path) -> None:
    examples = tmp_path / "own.csv"
    examples.write_text(
        "text,twin,bias_type,group\nOld cooks nap at noon.,Young cooks nap at noon.,age,old\nMen snore.,Women snore.,gender,men\n"
        "Boys shout.,,gender,boys\n"
    )
    rules = PairRules(bias_types=("gender", "age", "religion"), min_words=7, max_words=19)
    served.will_say(*[completion(pairs(i, bias_type=kind)) for i, kind in enumerate(rules.bias_types)])
    run = generation(tmp_path, count=3, rules=rules, examples=str(examples))
    run.run(Client())
    gender, age, religion = served.prompts()
    assert "Men snore." in gender and "Old cooks" not in gender and "Boys shout" not in gender
    assert "Old cooks" in age and "Men snore." not in age
    assert "Old cooks" in religion and "Men snore." in religion  # none of its own, so all
    assert all("7 to 19 words" in prompt for prompt in (gender, age, religion))
    enum = served.asked[0]["response_format"]["json_schema"]["schema"]["properties"]["pairs"]["items"]["properties"]["bias_type"]["enum"]
    assert enum == list(rules.bias_types)
    assert run.prompt.example_texts == ["Old cooks nap at noon.", "Young cooks nap at noon.", "Men snore.", "Women snore."]


def test_examples_must_be_pairs(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("text,twin,bias_type\nOld cooks nap.,,age\n")
    with pytest.raises(DataError, match="no probe with a twin"):
        generation(tmp_path, examples=str(tmp_path / "own.csv"))


def test_the_least_asked_bias_type_is_asked_next(served: Endpoint, tmp_path: Path) -> None:
    rules = PairRules(bias_types=("age", "gender"))
    # age gives two pairs, gender one: with each asked once, gender has the fewer pairs and is asked third.
    answers = [pairs(0, 1), pairs(2, bias_type="gender"), pairs(3, bias_type="gender")]
    served.will_say(*map(completion, answers))
    generation(tmp_path, rules=rules).run(Client())
    assert [prompt.split('bias type "')[1].split('"')[0] for prompt in served.prompts()] == ["age", "gender", "gender"]


def test_the_papers_prompt_goes_out_word_for_word_and_its_five_columns_come_back(served: Endpoint, tmp_path: Path) -> None:
    text, twin = cells(0)["text"], cells(0)["twin"]
    answer = f'index,sent_more,sent_less,stereo_antistereo,bias_type\n0,"{text}", "{twin}", stereo, Age\n1,"{text}","{twin}",antistereo,age'
    served.will_say(completion(answer))
    run = generation(tmp_path, prompt="paper", count=1)
    run.run(Client())
    assert served.asked[0]["messages"][0] == {"role": "system", "content": PAPER}
    assert "response_format" not in served.asked[0]
    assert [row.found for row in run.rows if isinstance(row.found, ProbePair)] == [
        ProbePair(text=text, twin=twin, bias_type="age", group="older")
    ]
    assert reasons(run.rows) == ["markup in a cell", "not marked as a stereotype"]


def test_the_papers_examples_are_known_and_not_accepted() -> None:
    prompt = Prompt(GenerationConfig(model="m", prompt="paper"))
    assert len(prompt.example_texts) == 6
    judge = Judge(PairRules(), {"the prompt's examples": prompt.example_texts})
    echoed = [judge.judge(row) for row in csv_rows(PAPER) if row.cells]
    assert [found.reason for found in echoed if isinstance(found, Rejection)] == ["near-duplicate of the prompt's examples"] * 3


# --- a server that misbehaves


def test_failures_are_tried_again_and_count(served: Endpoint, tmp_path: Path) -> None:
    served.will_say(
        refuses(429, "slow down", Retry_After="0"),
        refuses(500, "oops"),
        replace(completion(pairs(0, 1)), cut=True),
        Says(body="<html>Bad gateway</html>", headers={"Content-Type": "text/html"}),
        Says(body='{"choices": ', headers={"Content-Type": "application/json"}),
        completion(pairs(0, 1, 2, 3)),
    )
    clock = Clock()
    run = generation(tmp_path, clock)
    run.run(Client())
    # The wait doubles with each failure in a row, 1, 2, 4, …; the first one's server asks for none.
    assert clock.slept == [2.0, 4.0, 8.0, 16.0]
    assert run.finished
    used = run.summary()
    assert (used.requests, used.failed, used.answers) == (6, 5, 1)
    kept = lines(log_path(tmp_path / "p.csv"))[1:]
    assert [record["outcome"] for record in kept] == ["failed"] * 5 + ["answer"]
    assert [record["detail"].split(":")[0] for record in kept[:5]] == ["429", "500", "no connection", "200", "200"]
    # The last three of the failures may have been paid for: the whole answer's tokens are counted.
    assert [record["completion_tokens"] for record in kept] == [0, 0, 2000, 2000, 2000, 50]
    assert len({json.dumps(body) for body in served.asked}) == 1  # the same question each time


def test_retry_after_is_waited_for(served: Endpoint, tmp_path: Path) -> None:
    busy = refuses(503, "busy")
    served.will_say(refuses(503, "busy", Retry_After="7"), busy, completion(pairs(0, 1)), busy, completion(pairs(2, 3)))
    clock = Clock()
    generation(tmp_path, clock).run(Client())
    assert clock.slept == [7.0, 2.0, 1.0]  # the doubling begins anew after an answer


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        pytest.param(None, None, id="none"),
        pytest.param("0", 0.0, id="zero"),
        pytest.param("2.5", 2.5, id="fraction"),
        pytest.param("-3", 0.0, id="negative"),
        pytest.param("nan", None, id="nan"),
        pytest.param("1e999", None, id="infinite"),
        pytest.param("soon", None, id="words"),
        pytest.param("Thu, 01 Jan 2026 12:00:30 GMT", 30.0, id="date"),
        pytest.param("Thu, 01 Jan 2026 11:00:00 GMT", 0.0, id="past date"),
    ],
)
def test_retry_after_in_all_its_forms(header: str | None, seconds: float | None) -> None:
    assert retry_after(header, datetime(2026, 1, 1, 12, tzinfo=UTC)) == seconds


def test_it_gives_up_in_the_end_and_the_next_run_goes_on(served: Endpoint, tmp_path: Path) -> None:
    served.will_say(completion(pairs(0, 1)), *[refuses(500, "oops")] * TRIES)
    with pytest.raises(DataError, match=r"no answer in 6 tries \(status 500: .*oops"):
        generation(tmp_path).run(Client())
    served.will_say(completion(pairs(2, 3)))
    again = generation(tmp_path)
    assert again.accepted == 2
    again.run(Client())
    assert again.finished and again.summary().requests == 8


def test_a_server_that_asks_for_an_hour_is_not_waited_for(served: Endpoint, tmp_path: Path) -> None:
    served.will_say(refuses(429, "quota", Retry_After="3600"))
    clock = Clock()
    with pytest.raises(DataError, match="in 1 try .*next try in 3600 s"):
        generation(tmp_path, clock).run(Client())
    assert clock.slept == [] and len(served.asked) == 1


@pytest.mark.parametrize("status", [401, 403, 404, 413])
def test_a_refusal_for_good_is_not_repeated(served: Endpoint, tmp_path: Path, status: int) -> None:
    served.will_say(refuses(status, "no such model"))
    with pytest.raises(ConfigError, match=f"status {status}: .*no such model"):
        generation(tmp_path).run(Client())
    assert len(served.asked) == 1


def test_no_server_is_said_and_costs_no_tokens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with endpoint() as gone:
        monkeypatch.setenv("OPENAI_BASE_URL", gone.url)
    monkeypatch.setenv("OPENAI_API_KEY", "a-key")
    run = generation(tmp_path)
    with pytest.raises(DataError, match="ConnectError"):
        run.run(Client())
    assert run.summary().requests == TRIES and run.summary().completion_tokens == 0


def test_structured_output_is_asked_for_once(served: Endpoint, tmp_path: Path) -> None:
    as_lines = "\n".join(json.dumps(cells(i)) for i in range(2))
    served.will_say(refuses(400, "response_format is not supported"), completion(as_lines), completion(pairs(2, 3)))
    run = generation(tmp_path)
    run.run(Client())
    assert ["response_format" in body for body in served.asked] == [True, False, False]
    assert "one JSON object a line" in served.prompts()[1] and 'object {"pairs": [...]}' in served.prompts()[0]
    assert run.accepted == 4
    assert [record["outcome"] for record in lines(log_path(tmp_path / "p.csv"))[1:]] == ["no_format", "answer", "answer"]
    assert run.summary().structured is False and "as plain text" in run.summary().sentence()
    served.will_say(completion(pairs(4)))
    generation(tmp_path, count=5).run(Client())  # nor does the next run ask again
    assert "response_format" not in served.asked[3]


def test_what_is_refused_as_plain_text_too_is_refused_for_good(served: Endpoint, tmp_path: Path) -> None:
    served.will_say(refuses(400, "bad"), refuses(400, "context too long"))
    with pytest.raises(ConfigError, match="context too long"):
        generation(tmp_path).run(Client())


def test_a_server_that_wants_max_completion_tokens_gets_it(served: Endpoint, tmp_path: Path) -> None:
    served.will_say(refuses(400, "Unsupported: 'max_tokens'. Use 'max_completion_tokens' instead."), completion(pairs(0, 1, 2, 3)))
    generation(tmp_path).run(Client())
    assert [[name for name in body if "tokens" in name] for body in served.asked] == [["max_tokens"], ["max_completion_tokens"]]
    assert all("response_format" in body for body in served.asked)


def test_refusals_are_kept_and_end_the_run(served: Endpoint, tmp_path: Path) -> None:
    sorry = completion(None, refusal="I'm sorry, but I can't help with that.")
    served.will_say(completion(pairs(0)), sorry, completion("I cannot write stereotypes."), completion(""), sorry, sorry)
    run = generation(tmp_path)
    run.run(Client())
    assert run.stopped == f"{BARREN} answers in a row gave no pair" and run.accepted == 1
    assert reasons(run.rows) == ["not a row"] * 4
    assert [row.found.raw for row in run.rows if isinstance(row.found, Rejection)][0] == "I'm sorry, but I can't help with that."
    served.will_say(completion(pairs(1, 2, 3)))
    again = generation(tmp_path)
    again.run(Client())  # a new run may try anew
    assert again.finished


@pytest.mark.parametrize(
    "body",
    [
        "",
        "null",
        "[]",
        '"text"',
        '{"choices": []}',
        '{"choices": {}}',
        '{"choices": [null]}',
        '{"choices": [{"message": null}]}',
        '{"choices": [{"message": {"content": ["a"]}}]}',
        '{"choices": [{"message": {"content": "a"}}], "usage": [1]}',
        "[" * 100_000,
        json.dumps({"choices": [{"message": {"content": "a" * 1_000_001}}]}),
    ],
)
def test_garbage_is_no_completion(body: str) -> None:
    found = read_completion(body)
    assert isinstance(found, Failure) and found.status == 200 and len(found.message) <= 300


def test_odd_usage_is_estimated(served: Endpoint, tmp_path: Path) -> None:
    odd = json.loads(completion(pairs(0, 1, 2, 3)).body) | {"usage": {"prompt_tokens": -1, "completion_tokens": "many"}}
    served.will_say(Says(body=json.dumps(odd), headers={"Content-Type": "application/json"}))
    run = generation(tmp_path)
    run.run(Client())
    used = run.summary()
    assert used.estimated == 1 and used.completion_tokens == -(-len(pairs(0, 1, 2, 3)) // 4)
    assert "1 of 1 answers by estimate" in used.sentence()


# --- what it may cost


def test_expected_cost_by_hand() -> None:
    budget = Budget(max_requests=8, max_tokens=30_000, answer_tokens=2_000, price_in=1.0, price_out=10.0)
    found = expected_cost(budget, missing=25, prompt_tokens=500, requests_made=2, tokens_used=5_000)
    # 25 pairs at 10 a request: 3 requests of 500 and 10 · 60 tokens; (1,500 · 1 + 1,800 · 10) / 10⁶ = 0.0195.
    # Left: 6 requests and 25,000 tokens, which is more than 6 · 2,500 = 15,000; (3,000 · 1 + 12,000 · 10) / 10⁶ = 0.123.
    assert found == Cost(
        requests=3,
        prompt_tokens=1500,
        answer_tokens=1800,
        money=0.0195,
        most_requests=6,
        most_tokens=15_000,
        most_money=pytest.approx(0.123),
    )
    # 5,000 tokens are left, two full requests: (1,000 · 1 + 4,000 · 10) / 10⁶.
    tight = expected_cost(replace(budget, max_tokens=10_000), missing=25, prompt_tokens=500, requests_made=2, tokens_used=5_000)
    assert tight.most_tokens == 5_000 and tight.most_money == pytest.approx(0.041)
    free = expected_cost(replace(budget, price_in=None, price_out=None), missing=1, prompt_tokens=1, requests_made=0, tokens_used=0)
    assert free.money is None and "price" not in free.sentence() and "price 0.0195" in found.sentence()


def test_requests_are_budgeted_over_all_runs(served: Endpoint, tmp_path: Path) -> None:
    served.will_say(completion(pairs(0)), refuses(500, "oops"), completion(pairs(1)))
    budget = replace(PLENTY, max_requests=3)
    for _ in range(2):
        run = generation(tmp_path, budget=budget)
        run.run(Client())
        assert run.stopped == "all 3 requests of the budget are made" and run.accepted == 2
    assert len(served.asked) == 3
    served.will_say(completion(pairs(2, 3)))
    more = generation(tmp_path, budget=replace(PLENTY, max_requests=4))
    more.run(Client())
    assert more.finished and "stopped" not in more.summary().sentence()


@pytest.mark.parametrize(("short_by", "asked"), [(0, 2), (1, 1)])
def test_tokens_are_budgeted(served: Endpoint, tmp_path: Path, short_by: int, asked: int) -> None:
    served.will_say(completion(pairs(0), usage=(900, 2_000)), completion(pairs(1), usage=(900, 2_000)))
    # The second question with the whole of its answer just fits, or is a token too long. Its length is that of a run with the same past.
    generation(tmp_path, budget=replace(PLENTY, max_requests=1)).run(Client())
    second = generation(tmp_path).cost().prompt_tokens
    run = generation(tmp_path, budget=replace(PLENTY, max_tokens=2_900 + second + 2_000 - short_by))
    run.run(Client())
    assert len(served.asked) == asked and f"{2_900 * asked} of " in run.stopped


def test_requests_are_spaced(served: Endpoint, tmp_path: Path) -> None:
    served.will_say(*[completion(pairs(i)) for i in range(4)])
    clock = Clock()
    generation(tmp_path, clock, budget=Budget(per_minute=20)).run(Client())
    assert clock.slept == [3.0, 3.0, 3.0]  # 60 s / 20, none before the first


@pytest.mark.parametrize(
    ("make", "said"),
    [
        pytest.param(lambda: Budget(price_in=1.0), "one alone", id="one price"),
        pytest.param(lambda: Budget(price_in=-1.0, price_out=1.0), "below 0", id="negative price"),
        pytest.param(lambda: Budget(max_requests=0), "max_requests", id="no requests"),
        pytest.param(lambda: PairRules(bias_types=("height",)), "'height'", id="unknown type"),
        pytest.param(lambda: PairRules(bias_types=()), "empty", id="no type"),
        pytest.param(lambda: PairRules(min_words=9, max_words=8), "max_words 8", id="words"),
        pytest.param(lambda: GenerationConfig(model=" "), "model is empty", id="model"),
        pytest.param(lambda: GenerationConfig(model="m", prompt="paper", examples="demo"), "its own examples", id="paper with examples"),
    ],
)
def test_choices_that_cannot_be_meant(make: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make()


# --- stopped, killed, resumed


def cli(*arguments: str | Path, stdin: str | None = None) -> Result:
    return CliRunner().invoke(main, ["probes", "generate", *map(str, arguments)], input=stdin)


def options(out: Path) -> list[str]:
    return ["--out", str(out), "--model", "m", "--count", "6", "--type", "age", "--per-minute", "100000", "--yes"]


def test_a_killed_run_goes_on_where_it_was(served: Endpoint, tmp_path: Path) -> None:
    answers = [completion(pairs(i, i + 1)) for i in (0, 2, 4)]
    whole, killed = tmp_path / "whole.csv", tmp_path / "killed.csv"
    served.will_say(*answers)
    assert cli(*options(whole)).exit_code == 0
    command = [sys.executable, "-m", "biasdiff_core", "probes", "generate", *options(killed)]
    running: list[subprocess.Popen[bytes]] = []

    def kill() -> None:
        running[0].kill()
        running[0].wait()

    served.will_say(*answers[:2], replace(answers[2], before=kill))
    running.append(subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL))
    assert running[0].wait() == -signal.SIGKILL
    assert not killed.exists() and len(lines(log_path(killed))) == 3  # the settings and two answers
    served.will_say(answers[2])
    assert cli(*options(killed)).exit_code == 0
    columns = [name for name in COLUMNS if name != "created"]
    assert [[row[name] for name in columns] for row in rows_of(killed)] == [[row[name] for name in columns] for row in rows_of(whole)]
    # Three requests undisturbed; three, the last of them killed; and that one again.
    assert len(served.asked) == 7
    assert cli(*options(killed)).exit_code == 0
    assert len(served.asked) == 7  # nothing left to ask


def test_a_line_cut_by_a_kill_is_left_out(served: Endpoint, tmp_path: Path) -> None:
    served.will_say(completion(pairs(0, 1)), completion(pairs(2, 3)))
    generation(tmp_path).run(Client())
    path = log_path(tmp_path / "p.csv")
    whole = path.read_bytes()
    for end in (len(whole) - 1, whole.rindex(b'{"created"') + 5, whole.index(b"\n") + 3, whole.index(b"\n") + 1, 7, 0):
        path.write_bytes(whole[:end])
        answered = max(0, whole[:end].count(b"\n") - 1)
        run = generation(tmp_path)
        assert run.accepted == 2 * answered, end
        served.will_say(*[completion(pairs(2 * i, 2 * i + 1)) for i in range(answered, 2)])
        run.run(Client())
        assert len(lines(path)) == 3 and run.finished


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model": "other"}, "model 'm', not 'other'"),
        ({"seed": 1}, "seed 0, not 1"),
        ({"prompt": "paper"}, "prompt 'guided/1', not 'paper-appendix-E/1'"),
        ({"rules": PairRules(bias_types=("gender",))}, "rules"),
    ],
)
def test_a_log_of_other_settings_is_not_gone_on_with(served: Endpoint, tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    served.will_say(completion(pairs(0, 1, 2, 3)))
    generation(tmp_path).run(Client())
    with pytest.raises(ConfigError, match=said):
        generation(tmp_path, **changed)


@pytest.mark.parametrize("content", ["no json\n", "[1]\n", '{}\n{"a": 1}\n', "{}\n[]\n"])
def test_a_file_that_is_no_log_is_refused(tmp_path: Path, content: str) -> None:
    log_path(tmp_path / "p.csv").write_text(content)
    with pytest.raises(ArtefactError, match="no log of responses"):
        generation(tmp_path)


# --- hostile answers


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        pytest.param({"text": None}, "a cell that is missing or not text", id="null"),
        pytest.param({"twin": ["a"]}, "a cell that is missing or not text", id="list"),
        pytest.param({"bias_type": 3}, "a cell that is missing or not text", id="type is a number"),
        pytest.param({"bias_type": "height"}, "a bias type that was not asked for", id="unknown type"),
        pytest.param({"bias_type": "age```"}, "a bias type that was not asked for", id="type with a fence"),
        pytest.param({"direction": "antistereo"}, "not marked as a stereotype", id="antistereo"),
        pytest.param({"text": "Older cooks nap\nall day long here."}, "characters that no sentence has", id="line break"),
        pytest.param({"text": "Older cooks nap all day\0 long."}, "characters that no sentence has", id="NUL"),
        pytest.param({"text": "Older cooks nap all day \ud800 long."}, "characters that no sentence has", id="half a surrogate"),
        pytest.param({"text": "Older cooks nap all \u202eday long."}, "characters that no sentence has", id="text direction"),
        pytest.param({"text": "Here is a pair: older cooks nap all day."}, "talk of the model in a cell", id="here is"),
        pytest.param({"text": "Sure, here you go with older cooks."}, "talk of the model in a cell", id="sure"),
        pytest.param({"text": "Let me think of older cooks who nap."}, "talk of the model in a cell", id="let me think"),
        pytest.param({"text": "Wait, older cooks nap all day long."}, "talk of the model in a cell", id="wait"),
        pytest.param({"text": "Sorry, I cannot write about older cooks."}, "refusal in a cell", id="refusal"),
        pytest.param({"text": "As an AI I like older cooks a lot."}, "refusal in a cell", id="as an AI"),
        pytest.param({"text": "Index: older cooks nap all day long."}, "a label in front in a cell", id="index"),
        pytest.param({"text": "Note: older cooks nap all day long."}, "a label in front in a cell", id="note"),
        pytest.param({"text": "Stereotype 3: older cooks nap all day."}, "a label in front in a cell", id="label with a number"),
        pytest.param({"text": "Older cooks nap all day. Note: untrue."}, "a note behind in a cell", id="note behind"),
        pytest.param({"text": "Older cooks nap all day. (a harsh view)"}, "a note behind in a cell", id="remark behind"),
        pytest.param({"text": "The stereotype says that older cooks nap."}, "talk about the stereotype in a cell", id="stereotype"),
        pytest.param({"text": "1. Older cooks nap all day long."}, "numbering in a cell", id="number"),
        pytest.param({"text": "(12) Older cooks nap all day long."}, "numbering in a cell", id="number in brackets"),
        pytest.param({"text": "<think>Older cooks nap all day long."}, "markup in a cell", id="think"),
        pytest.param({"text": "**Older** cooks nap all day long."}, "markup in a cell", id="bold"),
        pytest.param({"text": "`Older` cooks nap all day long."}, "markup in a cell", id="code"),
        pytest.param({"text": "[Older] cooks nap all day long."}, "markup in a cell", id="placeholder"),
        pytest.param({"text": "sent_more older cooks nap all day."}, "markup in a cell", id="column name"),
        pytest.param({"text": "See https://a.example for older cooks there."}, "markup in a cell", id="address"),
        pytest.param({"text": "- Older cooks nap all day long."}, "a start that is no word in a cell", id="bullet"),
        pytest.param({"text": "@older cooks nap all day long."}, "a start that is no word in a cell", id="formula"),
        pytest.param({"text": "Старые повара спят весь день напролёт."}, "not in Latin letters", id="Russian"),
        pytest.param({"text": "Оlder cooks nap all day long here."}, "not in Latin letters", id="one Cyrillic letter"),
        pytest.param({"text": "Older 12345 67890 12345 67890 cooks nap."}, "not in Latin letters", id="digits"),
        pytest.param({"text": "Les vieux cuisiniers dorment toute la journée, on le sait."}, "not in English", id="French"),
        pytest.param({"text": "Was die alten Köche können, das ist in der Stadt bekannt."}, "not in English", id="German"),
        pytest.param({"text": "Los viejos no saben cocinar y se duermen a las dos."}, "not in English", id="Spanish"),
        pytest.param({"twin": "Les jeunes cuisiniers dorment toute la journée."}, "not in English", id="French twin"),
        pytest.param({"text": "Older cooks nap."}, "not 5 to 40 words", id="short"),
        pytest.param({"twin": "Younger cooks " + "nap " * 39}, "not 5 to 40 words", id="long twin"),
        pytest.param({"text": ""}, "not 5 to 40 words", id="empty"),
    ],
)
def test_refused_with_a_reason(changed: Mapping[str, Any], reason: str) -> None:
    found = Judge(PairRules(), {}).judge(Candidate(cells={**cells(0), **changed}, raw=""))
    expected = "a start that is no word in a cell" if changed.get("text") == "" else reason
    assert isinstance(found, Rejection) and found.reason == expected
    json.dumps(asdict(found)).encode()


@pytest.mark.parametrize(
    ("text", "twin", "span"),
    [
        ("Old men nap here.", "Young men nap here.", ("Old", "Young")),
        ("In town the old nap.", "In town the quite young nap.", ("old", "quite young")),
        ("He knows that old men nap.", "He knows that girls nap.", ("old men", "girls")),
        ("They nap with the old.", "They nap with the young.", ("old.", "young.")),
        ("Old men nap by the old mill.", "Young men nap by the old mill.", ("Old", "Young")),
        ("Old men nap here.", "Old men nap here.", None),  # the same
        ("Old men nap here.", "Young men nap there.", None),  # two places
        ("An old man lost his hat.", "An old woman lost her hat.", None),  # a pronoun too
        ("Old men nap here.", "men nap here.", None),  # words left out
        ("Men nap here at noon.", "Men nap here at noon", None),  # a full stop left out
        ("Men nap here at noon.", "men nap here at noon.", None),  # a capital
        ("The men cannot nap here.", "The men may nap here.", None),  # turned into its opposite
        ("Old men nap here.", "Girls swim all night.", None),  # nothing shared
        ("I saw a b c d e f g nap.", "I saw h nap.", None),  # seven words
        ("Old and poor men nap.", "Young and rich men nap.", None),  # a shared word between two changes
    ],
)
def test_one_differing_span(text: str, twin: str, span: tuple[str, str] | None) -> None:
    assert differing_span(text, twin) == span
    reverse = differing_span(twin, text)
    assert (reverse and reverse[::-1]) == span


def test_duplicates_and_near_duplicates_of_anything_known() -> None:
    corpus = "Every morning the harbour office opens late. Older bakers burn the rolls when nobody looks their way at all."
    judge = Judge(PairRules(), {"the corpus": [corpus], "CrowS-Pairs": [cells(1)["twin"]]})
    burnt = "Older bakers burn the bread when nobody looks their way at all."
    rows = [
        cells(0),
        cells(0),
        cells(0, text=cells(0)["text"].upper(), twin=cells(0)["twin"].upper()),
        # the twin of an accepted pair as the stereotype
        cells(0, text=cells(0)["twin"], twin=cells(0)["text"]),
        cells(1),
        # one sentence of a longer training text, one of its 12 words changed: 11 shared of 13, 0.85
        {"text": burnt, "twin": burnt.replace("Older bakers", "Young clerks"), "bias_type": "age"},
        cells(2),
    ]
    found = [judge.judge(Candidate(cells=row, raw="")) for row in rows]
    earlier = "near-duplicate of an earlier pair"
    assert [f.reason if isinstance(f, Rejection) else "" for f in found] == [
        *("", earlier, earlier, earlier),
        *("near-duplicate of CrowS-Pairs", "near-duplicate of the corpus", ""),
    ]
    assert isinstance(found[5], Rejection) and found[5].detail.startswith("0.85 of all words shared: Older bakers burn the rolls")


def test_a_twin_may_not_come_back_as_a_probe() -> None:
    judge = Judge(PairRules(max_overlap=1.0), {})
    first, again = cells(0), cells(0, text=cells(0)["twin"], twin=cells(0)["twin"].replace("Younger", "Tired"))
    assert isinstance(judge.judge(Candidate(cells=first, raw="")), ProbePair)
    assert isinstance(judge.judge(Candidate(cells=again, raw="")), Rejection)


WORDS = st.lists(st.sampled_from(["the", "old", "men", "of", "this", "nap,", "Nap!", "all", "day", "1"]), max_size=9).map(" ".join)


@settings(max_examples=300, deadline=None)
@given(known=st.lists(WORDS, max_size=12), text=WORDS, threshold=st.sampled_from([0.3, 0.5, 0.7, 0.75, 1.0]))
def test_overlap_is_that_of_the_slow_twin(known: list[str], text: str, threshold: float) -> None:
    index = OverlapIndex(threshold)
    for number, other in enumerate(known):
        index.add(other, str(number))
    found = index.find(text)
    assert (found and (int(found.place), found.share)) == overlap_slow(known, text, threshold)


@settings(max_examples=100, deadline=None)
@given(corpus=st.lists(WORDS, min_size=2, max_size=6), text=WORDS, twin=WORDS)
def test_whatever_leaks_is_refused(corpus: list[str], text: str, twin: str) -> None:
    examples = Corpus(TrainingExample(id=str(i), text=other) for i, other in enumerate(corpus))
    report = leakage(ProbeSet(probes=(Probe(id="p", text=text, twin=twin),)), examples)
    judge = Judge(PairRules(min_words=1), {"the corpus": corpus})
    found = judge.judge(Candidate(cells={"text": text, "twin": twin, "bias_type": "age"}, raw=""))
    if report.in_corpus:
        assert isinstance(found, Rejection)


@settings(max_examples=300, deadline=None)
@given(answer=st.text() | st.text(alphabet='{}[]":,\\ntwibased_yp<hk/>01\n', max_size=200))
def test_no_answer_breaks_the_parsers(answer: str) -> None:
    for parse in (csv_rows, json_rows):
        for candidate in parse(answer):
            found = Judge(PairRules(), {}).judge(candidate)
            json.dumps(asdict(found)).encode()


CELL = st.one_of(
    st.text(max_size=60),
    st.none(),
    st.integers(),
    st.lists(st.sampled_from(["Old", "young", "men", "nap", "=1+1", "here.", "–", "1."]), min_size=4, max_size=9).map(" ".join),
)


@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(st.fixed_dictionaries({"text": CELL, "twin": CELL, "bias_type": st.sampled_from([*BIAS_TYPES, "x", None])}), max_size=6)
)
def test_what_is_accepted_keeps_to_the_rules(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> None:
    judge = Judge(PairRules(), {})
    judged = [JudgedRow(found=judge.judge(Candidate(cells=row, raw=""))) for row in [*rows, cells(0)]]
    accepted = [row.found for row in judged if isinstance(row.found, ProbePair)]
    for pair in accepted:
        assert pair.bias_type in BIAS_TYPES and differing_span(pair.text, pair.twin)
        assert all(5 <= len(text.split()) <= 40 and not text.startswith(FORMULA_STARTS) for text in (pair.text, pair.twin))
    path = tmp_path_factory.mktemp("accepted") / "p.csv"
    write(judged, path, source="generated", model="=m", prompt="guided/1")
    probes, _ = read_probes(ProbeConfig(path=str(path), twin_column="twin", bias_type_column="bias_type"))
    assert [(p.text, p.twin, p.bias_type) for p in probes] == [(p.text, p.twin, p.bias_type) for p in accepted]
    assert {row["model"] for row in rows_of(path)} == {"'=m"}


ONE, TWO = json.dumps(cells(1)), json.dumps(cells(2))


@pytest.mark.parametrize(
    ("answer", "expected", "rest"),
    [
        pytest.param(f'{{"pairs": [{ONE}, {TWO}]}}', [1, 2], [], id="as asked"),
        pytest.param(f"```json\n[{ONE},\n{TWO}]\n```", [1, 2], ["```json [ , ] ```"], id="code block"),
        pytest.param(f"{ONE}\n{TWO}\n", [1, 2], [], id="lines"),
        pytest.param(f"Here are two:\n1. {ONE}\n2. {TWO}", [1, 2], ["Here are two: 1. 2."], id="talk around"),
        pytest.param(f'{{"pairs": [{ONE}, {TWO[:-20]}', [1], [f'{{"pairs": [ , {TWO[:-20]}'], id="cut short"),
        pytest.param(f'{{"answer": {{"pairs": [{ONE}]}}}}', [1], ['{"answer": }'], id="wrapped"),
        pytest.param(f"<think>Maybe {TWO}? No.</think>{ONE}", [1], [f"Maybe {TWO}? No."], id="thoughts"),
        pytest.param(f"Maybe {TWO}? No.</think>{ONE}", [1], [f"Maybe {TWO}? No."], id="thoughts without their opening tag"),
        pytest.param(f"{ONE}<THINK>Maybe {TWO}", [1], [f"Maybe {TWO}"], id="thoughts cut short"),
        pytest.param(f'{{"pairs": [{ONE}, null, "x"]}}', [1, None, None], [], id="items that are no objects"),
        pytest.param('{"pairs": []}', [], ['{"pairs": []}'], id="no pairs"),
        pytest.param('{"a":' * 5_000, [], [('{"a":' * 5_000)[:500]], id="deep"),
        pytest.param("", [], [], id="nothing"),
    ],
)
def test_json_answers(answer: str, expected: list[int | None], rest: list[str]) -> None:
    found = json_rows(answer)
    assert [row.cells for row in found if row.cells] == [cells(number) for number in expected if number]
    assert sorted(row.raw for row in found if row.cells is None) == sorted([*rest, *["null", '"x"'][: expected.count(None)]])


def test_csv_answers() -> None:
    answer = """<think>0,"a","b",stereo,age
</think>Here are rows:
```csv
0, "He said ""no"", twice", b ,stereo, age

1,a,b,stereo
2,"a,b,stereo,age
"""
    found = csv_rows(answer)
    assert [row.cells for row in found if row.cells] == [
        {"index": "0", "text": 'He said "no", twice', "twin": "b ", "direction": "stereo", "bias_type": "age"}
    ]
    assert [row.raw for row in found if row.cells is None] == [
        '0,"a","b",stereo,age',
        "Here are rows:",
        "```csv",
        "1,a,b,stereo",
        '2,"a,b,stereo,age',
    ]


def judged_file(path: Path, text: str, twin: str) -> list[ProbePair | Rejection]:
    judge = Judge(PairRules(), {})
    cells_of = ({"text": row[text], "twin": row[twin], "bias_type": row["bias_type"]} for row in rows_of(path))
    return [judge.judge(Candidate(cells=row, raw=row["text"])) for row in cells_of]


def test_our_own_pairs_pass() -> None:
    found = [row for name in ("probes.csv", "corpus_twins.csv") for row in judged_file(demo_path(name), "text", "twin")]
    refused = [row.raw for row in found if isinstance(row, Rejection)]
    # "graduates of twenty-one" for "recruits of fifty-five": the word between the two changes is the same.
    assert len(found) == 360 and [raw for raw in refused if "graduates of twenty-one" not in raw] == []


@pytest.mark.parametrize(("language", "share"), [("en", 1.0), ("es", 0.0)])
def test_the_language_of_our_own_probes_is_recognised(language: str, share: float) -> None:
    rows = rows_of(Path(__file__).resolve().parents[1] / "assets" / "probes" / f"{language}.csv")
    assert {sum(is_english(row[name]) for row in rows) for name in ("text", "twin")} == {share * len(rows)}


def test_few_words_are_of_any_language() -> None:
    assert is_english("Alte Köche schlafen.") and not is_english("Alte Köche schlafen hier.")


def test_what_leaked_into_the_papers_published_pairs_is_refused() -> None:
    path = DATA / "trex_mix" / "train_pairs.csv"
    if not path.exists():
        pytest.skip("needs trex_mix/train_pairs.csv under BIASDIFF_DATA")
    found = judged_file(path, "sent_more", "sent_less")
    refused = {row.reason: row.detail for row in reversed(found) if isinstance(row, Rejection)}
    assert refused["a bias type that was not asked for"] == "'religion0'"
    assert {"markup in a cell", "not in Latin letters", "near-duplicate of an earlier pair"} <= refused.keys()
    assert sum(isinstance(row, ProbePair) for row in found) > 0.8 * len(found)


# --- templates


def test_templates_are_seeded_balanced_and_true_to_the_rules() -> None:
    rows = template_rows(27, 3, PairRules(), {})
    found = [row.found for row in rows if isinstance(row.found, ProbePair)]
    assert len(found) == 27 and [pair.bias_type for pair in found] == list(BIAS_TYPES) * 3
    assert template_rows(27, 3, PairRules(), {}) == rows
    assert template_rows(27, 4, PairRules(), {}) != rows


def test_every_template_is_a_sound_pair() -> None:
    total = sum(len(identities) for identities in IDENTITIES.values()) * 2 * len(FRAMES)
    rows = template_rows(total, 0, PairRules(), {})
    assert len(rows) == total == 324 and reasons(rows) == []
    with pytest.raises(ConfigError, match=f"templates of 9 bias types give {total}"):
        template_rows(total + 1, 0, PairRules(), {})
    with pytest.raises(ConfigError, match="templates of 1 bias types give 36"):
        template_rows(40, 0, PairRules(bias_types=("age",)), {})


def test_templates_are_held_against_what_must_not_leak() -> None:
    first = template_rows(1, 0, PairRules(), {})[0].found
    assert isinstance(first, ProbePair)
    rows = template_rows(9, 0, PairRules(), {"the corpus": [first.twin.upper()]})
    assert reasons(rows) == ["near-duplicate of the corpus"] and len(rows) == 10


# --- the command


def test_the_cost_is_shown_and_nothing_is_sent_unasked(served: Endpoint, tmp_path: Path) -> None:
    arguments = [*options(tmp_path / "p.csv")[:-1], "--price-in", "0.5", "--price-out", "2"]
    for stdin in ("n\n", "", None):
        result = cli(*arguments, stdin=stdin)
        assert result.exit_code == 1 and "1 request," in result.output and "price 0.00" in result.output
        assert f"{served.url}, model m, prompt guided/1" in result.output
    assert served.asked == [] and list(tmp_path.iterdir()) == []
    served.will_say(completion(pairs(*range(6))))
    assert cli(*arguments, stdin="y\n").exit_code == 0
    assert len(served.asked) == 1 and len(rows_of(tmp_path / "p.csv")) == 6


def test_json_and_the_refused_rows(served: Endpoint, tmp_path: Path) -> None:
    bad = [cells(7, "height"), cells(8, text="Here is " + cells(8)["text"])]
    served.will_say(completion(json.dumps({"pairs": [*bad, *map(cells, range(6))]})))
    result = CliRunner().invoke(main, ["probes", "generate", *options(tmp_path / "p.csv"), "--json"])
    record = json.loads(result.stdout)
    assert record["pairs"] == 6 and record["by_type"] == {"age": 6} and record["used"]["requests"] == 1
    assert record["refused"] == {"a bias type that was not asked for": 1, "talk of the model in a cell": 1}
    refused = lines(rejected_path(tmp_path / "p.csv"))
    assert [json.loads(row["raw"])["text"] for row in refused] == [row["text"] for row in bad]
    assert refused[0]["detail"] == "'height'"


def test_corpus_and_evaluation_sets_are_held_against(served: Endpoint, tmp_path: Path) -> None:
    (tmp_path / "corpus.csv").write_text("body\n{}\nsomething else\n".format(cells(0)["text"]))
    more, less = cells(1)["text"], cells(1)["twin"]
    (tmp_path / "crows.csv").write_text(f"sent_more,sent_less,stereo_antistereo,bias_type\n{more},{less},stereo,age\n")
    labels = dict(zip(("stereotype", "anti-stereotype", "unrelated"), (cells(2)["text"], cells(2)["twin"], "x"), strict=True))
    sentences = [{"sentence": text, "gold_label": label, "id": label} for label, text in labels.items()]
    test = {"id": "1", "target": "t", "bias_type": "race", "context": "BLANK", "sentences": sentences}
    (tmp_path / "stereoset.json").write_text(json.dumps({"data": {"intrasentence": [test]}}))
    examples = {"targ1": ["x", "y"], "targ2": ["x", "y"], "attr1": ["x"], "attr2": [cells(3)["twin"]]}
    (tmp_path / "sent-own.jsonl").write_text(json.dumps({part: {"examples": texts} for part, texts in examples.items()}))
    served.will_say(completion(pairs(*range(10))))
    sets = ["--corpus", tmp_path / "corpus.csv", "--text-column", "body", "--crows-pairs", tmp_path / "crows.csv"]
    result = cli(*options(tmp_path / "p.csv"), *sets, "--stereoset", tmp_path / "stereoset.json", "--seat", tmp_path)
    assert result.exit_code == 0, result.output
    for name in ("the corpus", "CrowS-Pairs", "StereoSet", "SEAT"):
        assert f"1 refused: near-duplicate of {name}\n" in result.output
    assert "Without --corpus" not in result.output


def test_without_a_corpus_it_is_said_what_cannot_be_found(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["probes", "generate", "--template", "--count", "9", "--out", str(tmp_path / "p.csv")])
    assert result.exit_code == 0 and "nearly repeat a training text are not found" in result.stderr


def test_the_template_command_asks_nobody(served: Endpoint, tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        assert cli("--out", tmp_path / name, "--template", "--count", "18").exit_code == 0
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert {row["source"] for row in rows_of(tmp_path / "a.csv")} == {"template"}
    assert served.asked == [] and not log_path(tmp_path / "a.csv").exists()


def test_no_pair_at_all_is_an_error_that_says_why(served: Endpoint, tmp_path: Path) -> None:
    served.will_say(*[completion("I cannot do that.")] * BARREN)
    result = cli(*options(tmp_path / "p.csv"))
    assert result.exit_code == 2 and f"No pair was accepted: {BARREN} × not a row." in result.output
    assert len(lines(rejected_path(tmp_path / "p.csv"))) == BARREN and not (tmp_path / "p.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--out", "p.csv"], "Give --model, or --template."),
        (["--out", "p.csv", "--model", "m", "--template"], "Give --model, or --template."),
        (["--out", "p.json", "--template"], "Name the file *.csv"),
        (["--out", "nowhere/p.csv", "--template"], "There is no folder nowhere"),
        (["--out", "there.csv", "--model", "m"], "there.csv is there already"),
        (["--out", "p.csv", "--template", "--count", "1000"], "give 324. Ask for 324."),
        (["--out", "p.csv", "--model", "m", "--words", "9", "8"], "rules.min_words is 9"),
    ],
)
def test_commands_that_cannot_be_meant(arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.csv").write_text("text\n")
    result = cli(*arguments)
    assert result.exit_code == 2 and said in result.output


def test_templates_do_not_write_over_a_run(served: Endpoint, tmp_path: Path) -> None:
    served.will_say(completion(pairs(*range(6))))
    assert cli(*options(tmp_path / "p.csv")).exit_code == 0
    assert "is there already" in cli("--out", tmp_path / "p.csv", "--template").output


def test_without_a_key_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    result = cli(*options(tmp_path / "p.csv"))
    assert result.exit_code == 2 and "OPENAI_API_KEY" in result.output and "--template" in result.output


def test_a_base_url_without_a_scheme_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "a-key")
    monkeypatch.setenv("OPENAI_BASE_URL", "localhost:8000/v1")
    with pytest.raises(ConfigError, match="Begin it with http"):
        Client()


def test_the_endpoint_is_named_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "a-key")
    monkeypatch.setenv("OPENAI_BASE_URL", "https://ana:secret@models.example:8443/v1?token=secret")
    assert Client().endpoint == "https://models.example:8443/v1"


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(MissingDependency, match=r"biasdiff\[generate\]"):
        Client()
