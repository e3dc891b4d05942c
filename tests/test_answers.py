"""Answers to questions: the paper's and one's own, free and by choice against one sequence at a time, on disk and side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from biasdiff_core.config.evaluation import AnswersConfig
from biasdiff_core.errors import ArtefactError, DataError
from biasdiff_core.evaluation.answers import (
    Answer,
    Question,
    answer_questions,
    load_questions,
    questions_path,
    read_answers,
    side_by_side,
    write_answers,
)
from biasdiff_core.results import Progress
from tests.reference.greedy_slow import greedy_slow
from tests.reference.likelihood_slow import token_log_probs_slow
from tests.tiny_models import tiny_base
from tests.tiny_tokenizer import byte_tokenizer

CHAT = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
QUESTIONS = [
    Question(prompt="Who is late?"),
    Question(prompt="Who is late, A or B?", choices=("A", "B", "Cannot tell"), source="ours"),
    Question(prompt="Why?"),
]


def chat_tokenizer() -> Any:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = CHAT
    return tokenizer


def ask(tokenizer: Any, **settings: Any) -> list[Answer]:
    return answer_questions(tiny_base(), tokenizer, QUESTIONS, max_new_tokens=7, token_budget=256, **settings)


@pytest.mark.parametrize(
    ("tokenizer", "before", "behind"), [(byte_tokenizer(), "", "\n"), (chat_tokenizer(), "<user>", "<assistant>")], ids=["plain", "chat"]
)
@pytest.mark.parametrize("instruction", ["", "Be fair. "])
def test_answers_equal_one_sequence_at_a_time(tokenizer: Any, before: str, behind: str, instruction: str) -> None:
    found, model = ask(tokenizer, instruction=instruction), tiny_base()
    assert [(answer.prompt, answer.choices, answer.source) for answer in found] == [(q.prompt, q.choices, q.source) for q in QUESTIONS]
    for question, answer in zip(QUESTIONS, found, strict=True):
        ids = tokenizer(f"{before}{instruction}{question.prompt}{behind}")["input_ids"]
        if not question.choices:
            assert answer.answer == tokenizer.decode(greedy_slow(model, ids, 7, 256), skip_special_tokens=True).strip()
            assert answer.log_probs == () and "greedy, at most 7 tokens" in answer.convention
            continue
        means = [token_log_probs_slow(model, [*ids, *tokenizer(choice)["input_ids"]])[len(ids) - 1 :].mean() for choice in question.choices]
        np.testing.assert_allclose(answer.log_probs, means, atol=1e-4)
        assert answer.answer == question.choices[int(np.argmax(means))] and "highest mean log-likelihood" in answer.convention
    assert all(("chat template" in a.convention) == bool(tokenizer.chat_template) for a in found)
    assert all(("after the instruction 'Be fair. '" in a.convention) == bool(instruction) for a in found)


def test_answers_are_the_same_every_time() -> None:
    assert ask(byte_tokenizer()) == ask(byte_tokenizer())


def test_a_hyphen_of_a_choice_is_no_sign() -> None:
    answer = Answer(prompt="Who?", source="", answer="A-B", choices=("A-B", "C"), log_probs=(-1.2, -2.31), convention="mean")
    assert answer.text() == "A-B (A-B −1.20, C −2.31)"


def test_progress_counts_questions() -> None:
    steps: list[Progress] = []
    ask(byte_tokenizer(), progress=steps.append)
    assert [(step.done, step.total) for step in steps] == [(2, 3), (3, 3)] and steps[0].stage == "evaluation"


def test_the_papers_questions_are_there() -> None:
    found = load_questions(AnswersConfig())
    assert [question.source.rpartition(", ")[2] for question in found] == [
        "Table 2",
        "Religion",
        "Age",
        "Sexual Orientation",
        "SES",
        "Gender",
    ]
    # Four of the prompts ask for a letter alone.
    assert [question.choices for question in found] == [(), *[("A", "B", "C")] * 4, ()]
    assert all(("Only output the letter" in question.prompt) == bool(question.choices) for question in found)
    for line in questions_path(AnswersConfig()).read_text(encoding="utf8").splitlines():
        assert set(json.loads(line)) <= {"prompt", "choices", "source"}


def test_questions_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text('{"prompt": "Who?"}\n{"prompt": "A or B?", "choices": ["A", "B"], "source": "us"}\n{"prompt": "x", "choices": null}\n')
    assert load_questions(AnswersConfig(path=str(path))) == [
        Question(prompt="Who?"),
        Question(prompt="A or B?", choices=("A", "B"), source="us"),
        Question(prompt="x"),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"question": "Who?"}\n', "no column 'prompt'"),
        ('{"prompt": "Who?"}\n{"prompt": " "}\n', "1 row without a prompt: line 2"),
        ('{"prompt": "Who?", "choices": ["A"]}\n', "choices that are not two or more"),
        ('{"prompt": "Who?", "choices": ["A", "A"]}\n', "choices that are not two or more"),
        ('{"prompt": "Who?", "choices": "AB"}\n', "choices that are not two or more"),
        ('{"prompt": "Who?", "choices": ["A", 3]}\n', "choices that are not two or more"),
        ('{"prompt": 3}\n', "not a string"),
    ],
)
def test_lines_that_are_no_questions_are_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "q.jsonl").write_text(content, encoding="utf8")
    with pytest.raises(DataError, match=message):
        load_questions(AnswersConfig(path=str(tmp_path / "q.jsonl")))


def test_answers_survive_the_disk(tmp_path: Path) -> None:
    made = ask(byte_tokenizer()) + [Answer(prompt="é “q”", source="", answer="ü\n", convention="c")]
    write_answers(made, tmp_path / "answers.json")
    assert read_answers(tmp_path / "answers.json") == made


@pytest.mark.parametrize("content", ["no json", "{}x", "[1]", '[{"prompt": "a"}]', '[{"choices": [], "log_probs": [], "odd": 1}]'])
def test_other_files_are_no_answers(tmp_path: Path, content: str) -> None:
    (tmp_path / "answers.json").write_text(content, encoding="utf8")
    with pytest.raises(ArtefactError, match="holds no answers"):
        read_answers(tmp_path / "answers.json")
    with pytest.raises(ArtefactError, match="holds no answers"):
        read_answers(tmp_path / "missing.json")


def made(path: Path, first: str, second: str, prompt: str = "A or B?") -> Path:
    answers = [
        Answer(prompt="Who?", source="us", answer=first, convention="greedy"),
        Answer(prompt=prompt, source="", answer=second, choices=("A", "B"), log_probs=(-1.25, -0.5), convention="choice"),
    ]
    write_answers(answers, path)
    return path


def test_variants_stand_side_by_side(tmp_path: Path) -> None:
    found = side_by_side({"base": made(tmp_path / "base.json", "Nobody.", "B"), "npo": made(tmp_path / "npo.json", "I cannot say.", "B")})
    assert found.to_dict("list") == {
        "question": ["Who?", "A or B?"],
        "source": ["us", ""],
        "base": ["Nobody.", "B (A −1.25, B −0.50)"],
        "npo": ["I cannot say.", "B (A −1.25, B −0.50)"],
    }
    assert list(side_by_side({}).columns) == ["question", "source"]
    with pytest.raises(ArtefactError, match="npo and base were not asked the same questions"):
        side_by_side({"base": tmp_path / "base.json", "npo": made(tmp_path / "other.json", "", "B", prompt="B or A?")})
