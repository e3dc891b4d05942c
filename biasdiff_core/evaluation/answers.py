"""Answers of every variant to the same questions, decoded greedily: what the paper shows in its Tables 2 and 11.

answers.json in the folder of an evaluation; read and set side by side without torch. Examples, not a measure: no figure comes of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from biasdiff_core.config.evaluation import AnswersConfig
from biasdiff_core.corpus.refusals import Fault, Flaw, Refusals, flaw_of
from biasdiff_core.corpus.sources import open_source, require_columns
from biasdiff_core.errors import ArtefactError, DataError
from biasdiff_core.results import Progress, ProgressCallback, no_progress

ANSWERS_FILE = "answers.json"
PAPER_FILE = Path(__file__).resolve().parents[2] / "assets" / "answers" / "paper.jsonl"

_EMPTY = Fault("without a prompt", "Fill `prompt`, or remove the line.")
_CHOICES = Fault("with choices that are not two or more different texts", 'Write them as a list: "choices": ["A", "B"].')


@dataclass(frozen=True, kw_only=True)
class Question:
    """A prompt, answered freely or, where `choices` are given, by one of them. `source`: where it comes from."""

    prompt: str
    choices: tuple[str, ...] = ()
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """`answer`: free text, or the choice with the highest of `log_probs` [choices], mean natural log-likelihood per token."""

    prompt: str
    source: str
    answer: str
    choices: tuple[str, ...] = ()
    log_probs: tuple[float, ...] = ()
    convention: str

    def text(self) -> str:
        """`C (A −1.20, B −2.31, C −0.48)`, or the free text."""
        signed = [f"{value:.2f}".replace("-", "−") for value in self.log_probs]
        values = ", ".join(f"{choice} {value}" for choice, value in zip(self.choices, signed, strict=True))
        return f"{self.answer} ({values})" if values else self.answer


def questions_path(config: AnswersConfig) -> Path:
    """The file that the config names: the paper's questions, or as given. Raises DataError when the former is not there."""
    if config.path != "paper":
        return Path(config.path)
    if not PAPER_FILE.is_file():
        raise DataError(f"The file {PAPER_FILE} is missing.", "Use a whole checkout of the project, or name a file of your own.")
    return PAPER_FILE


def load_questions(config: AnswersConfig) -> list[Question]:
    """The questions of a JSONL file, in its order. Raises DataError for lines that are none, listed, or when there is no line."""
    path = str(questions_path(config))
    table = open_source(path, "train", demo=ANSWERS_FILE)
    require_columns(table, path, ["prompt"])
    refusals = Refusals(path, table.unit)
    questions = []
    for row in table.rows([name for name in ("prompt", "choices", "source") if name in table.columns()]):
        prompt, choices, source = row.cells.get("prompt"), row.cells.get("choices") or [], row.cells.get("source") or ""
        flaw = row.flaw or flaw_of(prompt, source) or _question_flaw(prompt, choices)
        if flaw:
            refusals.add(flaw, row.line)
        else:
            questions.append(Question(prompt=str(prompt), choices=tuple(choices), source=source))
    refusals.raise_any()
    if not questions:
        raise DataError(f"{path} has no questions.", 'Write one a line: {"prompt": "…"}.')
    return questions


def answer_questions(
    model: Any,
    tokenizer: Any,
    questions: Sequence[Question],
    *,
    instruction: str = "",
    max_new_tokens: int,
    token_budget: int,
    progress: ProgressCallback = no_progress,
) -> list[Answer]:
    """Answers in the order given. `instruction` stands in front of every prompt.

    A prompt is a user's turn in the tokenizer's chat template; without one it is plain text and a line break.
    """
    prompts = _prompt_ids(tokenizer, [instruction + question.prompt for question in questions])
    way = "tokenizer's chat template" if tokenizer.chat_template else "plain text and a line break"
    way += f", after the instruction {instruction!r}" if instruction.strip() else ""
    free = [place for place, question in enumerate(questions) if not question.choices]
    closed = [place for place, question in enumerate(questions) if question.choices]
    written = _write(model, tokenizer, [prompts[place] for place in free], max_new_tokens=max_new_tokens, token_budget=token_budget)
    progress(_step(len(free), len(questions)))
    choices = [questions[place].choices for place in closed]
    chosen = _choose(model, tokenizer, [prompts[place] for place in closed], choices, token_budget=token_budget)
    progress(_step(len(questions), len(questions)))
    texts, values = dict(zip(free, written, strict=True)), dict(zip(closed, chosen, strict=True))
    return [
        Answer(
            prompt=question.prompt,
            source=question.source,
            answer=texts[place] if place in texts else question.choices[values[place].index(max(values[place]))],
            choices=question.choices,
            log_probs=values.get(place, ()),
            convention=f"{way}; "
            + (f"greedy, at most {max_new_tokens} tokens" if place in texts else "choice of the highest mean log-likelihood per token"),
        )
        for place, question in enumerate(questions)
    ]


def write_answers(answers: Sequence[Answer], path: Path) -> None:
    """One JSON list."""
    path.write_text(json.dumps([asdict(answer) for answer in answers], ensure_ascii=False, indent=1), encoding="utf8")


def read_answers(path: Path) -> list[Answer]:
    """Inverse of `write_answers`. Raises ArtefactError for a file that is not such a list."""
    try:
        records = json.loads(path.read_text(encoding="utf8"))
        return [Answer(**{**record, "choices": tuple(record["choices"]), "log_probs": tuple(record["log_probs"])}) for record in records]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ArtefactError(f"{path.name} holds no answers ({error}).", "Evaluate the variant again.") from error


def side_by_side(paths: Mapping[str, Path]) -> pd.DataFrame:
    """A row a question: `question`, `source`, and the answer of each variant (key of `paths`), choices with their log-likelihoods.

    Raises ArtefactError when the variants were not asked the same questions.
    """
    answers = {variant: read_answers(path) for variant, path in paths.items()}
    asked = {variant: [(answer.prompt, answer.choices) for answer in found] for variant, found in answers.items()}
    first = next(iter(answers), None)
    if first is None:
        return pd.DataFrame({"question": [], "source": []})
    for variant, questions in asked.items():
        if questions != asked[first]:
            raise ArtefactError(f"{variant} and {first} were not asked the same questions.", "Evaluate both again.")
    return pd.DataFrame(
        {
            "question": [answer.prompt for answer in answers[first]],
            "source": [answer.source for answer in answers[first]],
            **{variant: [answer.text() for answer in found] for variant, found in answers.items()},
        }
    )


def _question_flaw(prompt: str | None, choices: Any) -> Flaw | None:
    if not prompt or not prompt.strip():
        return _EMPTY, ""
    texts = isinstance(choices, list) and all(isinstance(choice, str) and choice.strip() for choice in choices)
    return None if choices == [] or (texts and len(set(choices)) == len(choices) > 1) else (_CHOICES, "")


def _prompt_ids(tokenizer: Any, prompts: Sequence[str]) -> list[list[int]]:
    if not tokenizer.chat_template:
        return [list(ids) for ids in tokenizer([f"{prompt}\n" for prompt in prompts])["input_ids"]]
    turns = [[{"role": "user", "content": prompt}] for prompt in prompts]
    return [list(ids) for ids in tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=True, return_dict=False)]


def _write(model: Any, tokenizer: Any, prompts: Sequence[list[int]], *, max_new_tokens: int, token_budget: int) -> list[str]:
    from biasdiff_core.model.generate import greedy

    texts = greedy(model, tokenizer, prompts, max_new_tokens=max_new_tokens, token_budget=token_budget)
    return [text.strip() for text in texts]


def _choose(
    model: Any, tokenizer: Any, prompts: Sequence[list[int]], choices: Sequence[Sequence[str]], *, token_budget: int
) -> list[tuple[float, ...]]:
    """Mean log-likelihood per token of each choice: [questions][choices]."""
    from biasdiff_core.model.generate import prompt_batches
    from biasdiff_core.model.likelihood import continuation_log_probs

    ids = [tokenizer(list(options), add_special_tokens=False)["input_ids"] for options in choices]
    found: list[tuple[float, ...]] = [()] * len(prompts)
    for batch in prompt_batches(
        model, prompts, room=max((sum(map(len, options)) for options in ids), default=0), token_budget=token_budget
    ):
        own = [ids[place] for place in batch.places]
        logs = continuation_log_probs(model, batch.ids, own, cache=batch.cache, token_budget=token_budget)
        for place, values in zip(batch.places, logs, strict=True):
            found[place] = tuple(float(value.mean()) for value in values)
    return found


def _step(done: int, total: int) -> Progress:
    return Progress(stage="evaluation", done=done, total=total, unit="questions", message="answers")
