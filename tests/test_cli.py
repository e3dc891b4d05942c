"""The command line on a finished tiny audit: every command, JSON, errors as one line with exit code 2."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from biasdiff_core.audit import Audit
from biasdiff_core.cli import main
from biasdiff_core.config import CrowsPairsConfig
from biasdiff_core.plan import removals
from biasdiff_core.review.removal import load_removal
from biasdiff_core.workspace.audits import WORKSPACE_VARIABLE

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def audit(finished_audit: Audit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Audit:
    """A copy of the finished audit in a workspace of its own."""
    shutil.copytree(finished_audit.folder.workspace, tmp_path / "workspace")
    monkeypatch.setenv(WORKSPACE_VARIABLE, str(tmp_path / "workspace"))
    return Audit.open(finished_audit.folder.id)


def biasdiff(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def ok(*arguments: str | Path) -> str:
    result = biasdiff(*arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def documented_commands(text: str) -> list[Sequence[str]]:
    """Every `biasdiff …` in the code blocks of a Markdown text, as words."""
    blocks = re.findall(r"```(?:bash|sh)?\n(.*?)```", text, re.DOTALL)
    lines = [line.split(" #")[0].strip() for block in blocks for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("biasdiff ")]


def test_status_shows_audits_stages_and_json(audit: Audit) -> None:
    assert audit.folder.id in ok("status")
    stages = json.loads(ok("status", audit.folder.id, "--json"))
    assert all(stage["done"] for stage in stages if "stage" in stage)


def test_rank_prints_the_ranking(audit: Audit) -> None:
    rows = json.loads(ok("rank", audit.folder.id, "--top", "5", "--json"))
    assert [row["rank"] for row in rows] == [1, 2, 3, 4, 5]
    assert rows[0]["id"] == audit.ranking()["id"].iloc[0]


def test_decisions_go_in_and_out(audit: Audit, tmp_path: Path) -> None:
    first = audit.ranking()["id"].iloc[0]
    ok("decide", "one", audit.folder.id, first, "unsure", "--auditor", "ana", "--reason", "reads both ways")
    ok("decide", "export", audit.folder.id, tmp_path / "decisions.csv")
    with (tmp_path / "decisions.csv").open(encoding="utf8", newline="") as handle:
        exported = {row["example_id"]: row for row in csv.DictReader(handle)}
    assert exported[first]["verdict"] == "unsure" and exported[first]["auditor"] == "ana"
    before = len(audit.log.actions())
    ok("decide", "import", audit.folder.id, tmp_path / "decisions.csv", "--auditor", "ben")
    assert len(audit.log.actions()) == before + 1
    ok("decide", "top", audit.folder.id, "10", "biased", "--auditor", "ben")
    assert audit.log.actions()[-1].kind == "bulk"


def test_mitigate_with_another_policy_makes_a_second_report(audit: Audit) -> None:
    before = audit.report().key
    output = ok("mitigate", audit.folder.id, "--policy", "top_percent", "--percent", "20", "--method", "retrain")
    assert audit.report().key != before and str(audit.report_files()[0]) in output
    assert "top 20 % of the ranking" in output and "not by a person" in output
    assert "retrain" in json.loads(ok("compare", audit.folder.id, "--json"))["variants"]


def test_mitigating_again_tells_of_that_set_not_of_the_newest(audit: Audit) -> None:
    first = removals(audit.folder)[0].key
    assert f"Removal set {first}." not in ok(
        "mitigate", audit.folder.id, "--policy", "top_percent", "--percent", "20", "--method", "random"
    )
    again = ok("mitigate", audit.folder.id, "--policy", "confirmed")
    assert f"Removal set {first}." in again and "what was confirmed as biased" in again
    found = audit.mitigate(audit.config.mitigation.methods, audit.frozen(first))
    assert found.variants == ("base", "origin", "retrain", "npo", "random") != audit.compare().variants
    controls_alone = biasdiff("compare", audit.folder.id, "--fail-if", "stereotype_margin.high > -100")  # the newest report
    assert controls_alone.exit_code == 2 and "--variant" in controls_alone.output


def test_a_frozen_log_is_taken_over_once_and_never_over_other_decisions(audit: Audit) -> None:
    frozen = removals(audit.folder)[0].path("decisions.jsonl")
    number = len(audit.log.actions())
    (audit.folder.workspace / "biasdiff.db").unlink()
    for _ in range(2):
        assert f"{number} action" in ok("decide", "replay", audit.folder.id, frozen)
    ok("run", audit.folder.id, "--decisions", frozen)
    ok("decide", "one", audit.folder.id, audit.ranking()["id"].iloc[0], "unsure", "--auditor", "ana")
    for command in (("decide", "replay", audit.folder.id, frozen), ("run", audit.folder.id, "--decisions", frozen)):
        refused = biasdiff(*command)
        assert refused.exit_code == 2 and "choose another workspace" in refused.output


def test_one_faulty_audit_does_not_hide_the_others(audit: Audit, tmp_path: Path) -> None:
    pairs = CrowsPairsConfig(path=str(tmp_path / "nowhere.csv"))
    config = replace(audit.config, name="faulty", evaluation=replace(audit.config.evaluation, crows_pairs=pairs))
    faulty = Audit.from_config(config, audit.folder.workspace).folder.id
    rows = {row["audit"]: row for row in json.loads(ok("status", "--json"))}
    assert rows[audit.folder.id]["finished"] and "nowhere.csv" in rows[faulty]["error"]
    refused = biasdiff("run", faulty)
    assert refused.exit_code == 2 and "nowhere.csv" in refused.output


def test_any_action_is_undone_by_number_and_the_undo_undone(audit: Audit) -> None:
    first = audit.ranking()["id"].iloc[0]
    ok("decide", "one", audit.folder.id, first, "unsure", "--auditor", "ana")
    number = len(audit.log.actions())
    assert f"undid action {number}" in ok("decide", "undo", audit.folder.id, "--auditor", "ana")
    assert f"restored action {number}" in ok("decide", "undo", audit.folder.id, str(number + 1), "--auditor", "ben")
    rows = json.loads(ok("decide", "history", audit.folder.id, "--json"))
    assert [(row["action"], row["who"], row["what"], row["state"]) for row in rows[:3]] == [
        (number + 2, "ben", f"restored action {number}", "holds"),
        (number + 1, "ana", f"undid action {number}", f"undone by action {number + 2}"),
        (number, "ana", "1 unsure", "holds"),
    ]
    refused = biasdiff("decide", "undo", audit.folder.id, "99", "--auditor", "ana")
    assert refused.exit_code == 2 and "no action 99" in refused.output


def test_mitigate_takes_out_the_examples_of_a_file_and_a_frozen_set(audit: Audit, tmp_path: Path) -> None:
    ids = audit.ranking()["id"][:6]
    (tmp_path / "ids.txt").write_text("\n".join(ids), encoding="utf8")
    output = ok("mitigate", audit.folder.id, "--policy", "filter", "--ids", tmp_path / "ids.txt", "--method", "retrain", "--auditor", "ana")
    assert "what was selected (imported ids.txt)" in output and "frozen by ana" in output
    removal = removals(audit.folder)[0]
    spared = {id_ for id_, decision in audit.log.current().items() if decision.verdict == "not_biased"}
    assert load_removal(removal).ids == tuple(sorted(set(ids) - spared))
    actions, reports = audit.log.actions(), len(audit.reports())
    ok("mitigate", audit.folder.id, "--removal", removal.key, "--method", "random")
    assert audit.report().inputs["removal"] == removal.key and len(audit.reports()) == reports + 1
    assert audit.log.actions() == actions and "chain valid" in ok("verify", audit.folder.id)


@pytest.mark.parametrize(
    "options, said",
    [
        (("--policy", "filter"), "--ids belongs to"),
        (("--removal", "abc", "--policy", "confirmed"), "give no policy"),
        (("--removal", "abc"), "no frozen removal set abc"),
    ],
)
def test_mitigate_refuses_what_does_not_belong_together(audit: Audit, options: tuple[str, ...], said: str) -> None:
    result = biasdiff("mitigate", audit.folder.id, *options)
    assert result.exit_code == 2 and said in result.output


def test_evaluate_prints_figures_with_conventions(audit: Audit) -> None:
    rows = json.loads(ok("evaluate", audit.folder.id, "--json"))
    assert {row["variant"] for row in rows} == {"base", "origin"} and all(row["convention"] for row in rows)


def test_compare_fails_a_build_with_its_reason(audit: Audit) -> None:
    """Exit 1 and the reason on standard error where a condition holds, 0 where none does; both judged on the same comparison."""
    failed = biasdiff("compare", audit.folder.id, "--variant", "retrain", "--fail-if", "stereotype_margin.high > -100")
    assert failed.exit_code == 1 and failed.stderr.startswith("FAILED ")
    assert "retrain" in failed.stderr and "stereotype_margin" in failed.stderr and "-100" in failed.stderr
    assert "FAILED" not in ok("compare", audit.folder.id, "--variant", "retrain", "--fail-if", "stereotype_margin.high < -100")
    shown = biasdiff("compare", audit.folder.id, "--json", "--fail-if", "stereotype_margin.high > -100")
    assert shown.exit_code == 1 and len(json.loads(shown.stdout)["failed"]) == 2  # retrain and NPO: random removal is a control
    assert biasdiff("compare", audit.folder.id, "--variant", "random", "--fail-if", "stereotype_margin.high > -100").exit_code == 1
    unknown = biasdiff("compare", audit.folder.id, "--fail-if", "no_such_figure > 1")
    assert unknown.exit_code == 2 and "no_such_figure" in unknown.stderr


@pytest.mark.parametrize("what, name", [("cleaned", "cleaned.csv"), ("report", "report.html"), ("ranking", "ranking.csv")])
def test_export(audit: Audit, tmp_path: Path, what: str, name: str) -> None:
    ok("export", audit.folder.id, what, tmp_path / name)
    assert (tmp_path / name).stat().st_size > 0


def test_export_of_a_whole_model(audit: Audit, tmp_path: Path) -> None:
    ok("export", audit.folder.id, "model", tmp_path / "model", "--variant", "npo")
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= {path.name for path in (tmp_path / "model").iterdir()}
    unknown = biasdiff("export", audit.folder.id, "model", tmp_path / "other", "--variant", "twin")
    assert unknown.exit_code == 2 and "no trained variant 'twin'" in unknown.output and "It has: origin, npo" in unknown.output
    for arguments in (("model",), ("ranking", "--variant", "npo")):
        refused = biasdiff("export", audit.folder.id, arguments[0], tmp_path / "other", *arguments[1:])
        assert refused.exit_code == 2 and "--variant belongs to" in refused.output
    assert not (tmp_path / "other").exists()


def test_verify_finds_a_flipped_byte(audit: Audit) -> None:
    assert "chain valid" in ok("verify", audit.folder.id)
    path = audit.artefact("ranking").path("ranking.parquet")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    result = biasdiff("verify", audit.folder.id, "--json")
    assert result.exit_code == 1
    assert [bad["path"] for bad in json.loads(result.output)["bad"]] == ["ranking.parquet"]


def test_an_audit_yaml_replays_to_the_same_keys(audit: Audit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [stage.key for stage in audit.plan().stages]
    ranking = audit.ranking()[["id", "score"]]
    monkeypatch.setenv(WORKSPACE_VARIABLE, str(tmp_path / "elsewhere"))
    ok("run", audit.folder.path / "audit.yaml")
    again = Audit.open(audit.folder.id)
    assert [stage.key for stage in again.plan().stages] == keys
    assert again.ranking()[["id", "score"]].equals(ranking)
    assert [t.difference for t in again.compare().tests] == [t.difference for t in audit.compare().tests]


@pytest.mark.parametrize(
    "arguments, said",
    [
        (("status", "nobody"), "There is no audit 'nobody'"),
        (("new", "Bad Name"), "small letters"),
        (("run", "missing.yaml"), "There is no file missing.yaml"),
        (("new", "x", "--adapter", "nowhere"), "holds no LoRA adapter"),
    ],
)
def test_errors_are_one_line_and_exit_2(workspace: Path, arguments: tuple[str, ...], said: str) -> None:
    result = biasdiff(*arguments)
    assert result.exit_code == 2
    assert said in result.output and result.output.startswith("biasdiff: ") and result.output.count("\n") == 1


def test_the_readme_names_only_commands_and_options_that_exist() -> None:
    commands = documented_commands((ROOT / "README.md").read_text(encoding="utf8"))
    assert commands
    for words in commands:
        command: click.Command = main
        rest = list(words)
        while isinstance(command, click.Group):
            command = command.commands[rest.pop(0)]
        # resilient_parsing: parse without running; an unknown option or a missing argument raises.
        context = command.make_context(command.name, [word for word in rest if word != "|"], resilient_parsing=False)
        assert context.params is not None


def test_every_command_has_help() -> None:
    def walk(group: click.Group) -> list[click.Command]:
        return [c for command in group.commands.values() for c in (walk(command) if isinstance(command, click.Group) else [command])]

    for command in walk(main):
        assert command.help, command.name
        assert all(option.help for option in command.params if isinstance(option, click.Option))
