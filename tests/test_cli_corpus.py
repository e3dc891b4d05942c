"""`biasdiff corpus`: what it lists, writes and prints, and its errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from biasdiff_core.corpus.card import read_card
from biasdiff_core.corpus.catalogue import DATA_VARIABLE
from biasdiff_core.corpus.recipes import RECIPES
from tests.test_cli import biasdiff, ok
from tests.test_mixes import DEMO_DIGEST, planted


def test_recipes_are_listed() -> None:
    rows = json.loads(ok("corpus", "recipes", "--json"))
    assert [row["recipe"].split(" or ")[0] for row in rows] == list(RECIPES)
    assert "CC BY-SA 4.0" in ok("corpus", "recipes")


def test_build_writes_the_file_and_its_card(tmp_path: Path) -> None:
    target = tmp_path / "mix.csv"
    shown = ok("corpus", "build", "custom", "--biased", "demo", "--neutral", "demo", "--out", target)
    assert "600 rows, seed 0, 3:7" in shown and f"written: {target}, {tmp_path / 'mix.card.json'}" in shown
    assert read_card(target).digest == DEMO_DIGEST


def test_build_takes_columns_ratio_and_seed_and_prints_the_card(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("comment\none\ntwo\nthree\n", encoding="utf8")
    arguments = ("--biased", tmp_path / "own.csv", "--biased-text", "comment", "--neutral", "demo", "--ratio", "1:2", "--seed", "7")
    arguments = (*arguments, "--biased-licence", "CC0", "--neutral-licence", "ours")
    card = json.loads(ok("corpus", "build", "custom", *arguments, "--out", tmp_path / "mix.csv", "--json"))
    assert (card["rows"], card["ratio"], card["seed"]) == (9, "1:2", 7)
    assert card["composition"]["source"] == {"demo": 6, "own.csv": 3}
    assert [source["licence"] for source in card["taken"]] == ["CC0", "CC BY 4.0"]  # the demo keeps its own
    assert card == json.loads((tmp_path / "mix.card.json").read_text(encoding="utf8"))


def test_build_of_a_probing_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DATA_VARIABLE, str(planted(tmp_path / "data")))
    assert "2 × gender" in ok("corpus", "build", "wino", "--out", tmp_path / "probes.csv")
    assert (tmp_path / "probes.csv").read_text(encoding="utf8").startswith("text,twin,bias_type,source")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("trex_mix",), "BIASDIFF_DATA is not set"),
        (("custom", "--biased", "demo"), "needs a biased and a neutral source"),
        (("custom", "--biased", "demo", "--neutral", "absent.csv"), "There is no file absent.csv"),
        (("custom", "--biased", "demo", "--neutral", "demo", "--ratio", "30%"), "The ratio '30%'"),
        (("seat", "--ratio", "1:1"), "has no ratio"),
    ],
)
def test_errors_are_one_line_and_exit_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str) -> None:
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    result = biasdiff("corpus", "build", *arguments, "--out", tmp_path / "mix.csv")
    assert result.exit_code == 2
    assert said in result.output and result.output.startswith("biasdiff: ") and result.output.count("\n") == 1
    assert not list(tmp_path.iterdir())
