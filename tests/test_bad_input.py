"""docs/bad-input.md says what the readers say of bad input today; on the command line a refusal is one line with exit code 2."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import Result

from biasdiff_core.audit import Audit
from tests.bad_input import CASES, DOCUMENT, HEADER, LFS, WHERE, Case, document, outcome, row
from tests.test_cli import biasdiff
from tests.tiny_audit import save_model, tiny_config


@pytest.fixture(scope="module")
def said() -> dict[str, list[str]]:
    """Kind of input → rows of its table, as they stand in the document."""
    sections = DOCUMENT.read_text(encoding="utf8").split("\n## ")[1:]
    return {kind: lines.strip().split("\n")[2:] for kind, _, lines in (section.partition("\n\n") for section in sections)}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_document_says_what_the_reader_says(case: Case, tmp_path: Path, said: dict[str, list[str]]) -> None:
    place = [other.wrong for other in CASES if other.kind == case.kind].index(case.wrong)
    assert said[case.kind][place] == row(case, tmp_path)


def test_the_document_holds_these_cases_alone(said: dict[str, list[str]]) -> None:
    assert {kind: len(rows) for kind, rows in said.items()} == {kind: sum(case.kind == kind for case in CASES) for kind in WHERE}
    assert document(said) == DOCUMENT.read_text(encoding="utf8")
    assert len({case.id for case in CASES}) == len(CASES) >= 35


def test_a_message_is_one_line_without_escapes_or_class_names(said: dict[str, list[str]]) -> None:
    rows = [line for lines in said.values() for line in lines]
    assert all(line.replace("\N{REPLACEMENT CHARACTER}", "").isprintable() for line in rows)
    assert not [line for line in rows if "Traceback" in line or "object at 0x" in line or "/tmp/" in line]


def test_a_refusal_says_how_to_mend_it(said: dict[str, list[str]]) -> None:
    taken = [line for lines in said.values() for line in lines if "| (taken) |" in line]
    assert not [line for line in taken if " is not " in line or " must " in line or " cannot " in line]


def test_what_is_taken_says_so(tmp_path: Path) -> None:
    taken = Case(kind="Corpus", wrong="nothing", provoke=lambda folder: f"read {folder}/c.csv of {folder}")
    assert outcome(taken, tmp_path) == ("read c.csv of FOLDER", "")
    assert row(taken, tmp_path) == f"| nothing | ` read c.csv of FOLDER ` | (taken) | {WHERE['Corpus']} |"


def refused(result: Result, *parts: str) -> None:
    """Exit code 2, and one last line, below a bar of progress if any, that begins with the program's name."""
    last = result.output.splitlines()[-1]
    assert result.exit_code == 2 and last.startswith("biasdiff: "), result.output
    assert all(part in last for part in parts), result.output


def test_a_bad_audit_yaml_or_corpus_or_adapter_ends_the_command_with_2(tmp_path: Path, workspace: Path) -> None:
    (tmp_path / "audit.yaml").write_text("name: a\n\tcorpus: {}\n", encoding="utf8")
    refused(biasdiff("run", tmp_path / "audit.yaml"), "is not YAML", "Correct the file.")
    (tmp_path / "c.csv").write_text(LFS, encoding="utf8")
    built = biasdiff("corpus", "build", "custom", "--biased", tmp_path / "c.csv", "--neutral", "demo", "--out", tmp_path / "mix.csv")
    refused(built, "a pointer of Git LFS", "git lfs pull")
    refused(biasdiff("new", "a", "--adapter", tmp_path), "holds no LoRA adapter")


def test_a_bad_model_ends_the_run_with_2(tmp_path: Path, workspace: Path) -> None:
    model = save_model(tmp_path / "model")
    config = tiny_config(tmp_path, model, "bad-model")
    (model / "model.safetensors").write_text(LFS, encoding="utf8")
    refused(biasdiff("run", Audit.from_config(config).folder.id), "cannot be loaded", "safetensors")


def test_decisions_of_another_audit_end_the_import_with_2(tmp_path: Path, finished_workspace: Path, finished_audit: Audit) -> None:
    (tmp_path / "d.csv").write_text(HEADER + "e9,biased,true\n", encoding="utf8")
    result = biasdiff("decide", "import", finished_audit.folder.id, tmp_path / "d.csv", "--auditor", "Ana")
    refused(result, "not in the corpus", "e9")
    for percent in ("-5", "0", "101", "nan"):
        refused(biasdiff("decide", "top", "--auditor", "Ana", "--", finished_audit.folder.id, percent, "biased"), "is no selection")
