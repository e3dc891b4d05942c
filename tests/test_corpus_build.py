"""The corpus page: a corpus built from a recipe becomes that of a new audit, and the groups that a corpus mentions."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from biasdiff_core.corpus.card import read_card
from biasdiff_core.corpus.catalogue import DATA_VARIABLE
from biasdiff_core.corpus.lexicon import Mentions
from biasdiff_core.plan import removals
from biasdiff_core.review.removal import load_removal
from biasdiff_core.workspace.audits import AuditFolder, list_audits
from biasdiff_ui.group_coverage import coverage_table
from tests.app_pages import keyed
from tests.test_app import open_page, shown
from tests.test_mixes import DEMO_DIGEST, planted


def built(app: AppTest, name: str) -> AppTest:
    """Choose the recipe and build it."""
    app.selectbox("recipe").set_value(name).run()
    return app.button("recipe_build").click().run()


def test_a_built_corpus_becomes_that_of_a_new_audit(workspace: Path) -> None:
    app = built(open_page("corpus"), "custom")
    assert not app.exception and not app.error
    path = workspace / "corpora" / f"custom-{DEMO_DIGEST[:12]}.csv"
    assert read_card(path).digest == DEMO_DIGEST
    assert str(path) in [text.value for text in app.text]
    for expected in ("label: 420 × 0, 180 × 1", "words, all: 9 to 26", "licence: CC BY 4.0", "repeated: 0 as they are"):
        assert expected in shown(app)
    app.button("recipe_build").click().run()  # the same content is the same file
    assert not app.error and len(list((workspace / "corpora").iterdir())) == 2
    app.button("recipe_use").click().run()
    assert not app.exception and not app.error
    assert app.text_input("new_corpus_path").value == str(path)
    assert (keyed(app.selectbox, "new_corpus_first").value, keyed(app.selectbox, "new_corpus_label").value) == (
        0,
        2,
    )  # text; after `none`, label
    assert "600 examples of 600 rows can be used" in shown(app) and "Known labels: 420 × 0, 180 × 1" in shown(app)


def test_a_built_probing_set_becomes_that_of_a_new_audit(workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DATA_VARIABLE, str(planted(tmp_path / "data")))
    app = built(open_page("corpus"), "wino").button("recipe_use").click().run()
    assert not app.exception and not app.error
    assert "2 probes, 2 with an anti-stereotype twin, 1 bias type" in shown(app)


def test_the_licence_of_an_own_source_stands_on_the_card(workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("text\none\ntwo\nthree\n", encoding="utf8")
    app = open_page("corpus")
    app.selectbox("recipe").set_value("custom").run()
    how = app.segmented_control("recipe_biased_how")
    how.set_value(how.options[2]).run()
    app.text_input("recipe_biased_path").set_value(str(tmp_path / "own.csv")).run()
    app.text_input("recipe_biased_licence").set_value("CC0").run()
    app = app.button("recipe_build").click().run()
    assert not app.exception
    licences = [source.licence for path in (workspace / "corpora").glob("custom-*.csv") for source in read_card(path).taken]
    assert licences == ["CC0", "CC BY 4.0"]


def test_errors_of_a_recipe_are_shown(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    app = built(open_page("corpus"), "balance")
    assert "bug/gold_BUG.csv" in app.error[0].value.replace("\\", "")
    app.text_input("recipe_ratio").set_value("3/7").run()
    assert "The ratio '3/7'" in app.error[0].value.replace("\\", "")
    assert not (workspace / "corpora").exists()


def test_the_table_of_groups_by_hand() -> None:
    """Of 10 rows 4 mention a type; 2 of the 8 that are left do: 40 % and 25 %, half of them gone."""
    found = [
        Mentions(bias_type="age", group=None, before=4, after=2),
        Mentions(bias_type="age", group="knights", before=4, after=2),
        Mentions(bias_type="age", group="dames", before=0, after=0),
    ]
    table = coverage_table(found, 10, 8, with_after=True)
    assert table["group"].tolist() == ["any", "knights"]
    assert table.iloc[0].tolist() == ["age", "any", 4, 40.0, 2, 25.0, 50.0]
    assert coverage_table(found, 10, 10, with_after=False).columns.tolist() == ["bias type", "group", "examples", "share, %"]


def groups(app: AppTest) -> pd.DataFrame:
    return next(frame.value for frame in app.dataframe if "share, %" in frame.value).set_index(["bias type", "group"])


def test_the_page_counts_groups_before_and_after_the_newest_removal(finished_workspace: Path) -> None:
    audit = AuditFolder(list_audits(finished_workspace)[0].path)
    removed = load_removal(removals(audit)[0]).ids
    app = open_page("corpus")
    assert f"less the {len(removed)} examples" in shown(app)
    table = groups(app)
    texts = pd.read_parquet(next(audit.path.glob("corpus/*/corpus.parquet"))).set_index("id")["text"]
    women = texts[texts.str.contains(r"\bwomen\b", case=False)]
    assert table.loc[("gender", "women"), "examples"] == len(women) > 0
    assert table.loc[("gender", "women"), "after"] == len(women.drop(index=list(removed), errors="ignore"))


def test_the_page_uses_the_lexicon_of_the_workspace(finished_workspace: Path) -> None:
    (finished_workspace / "lexicon.csv").write_text("bias_type,group,terms\nplaces,libraries,library\n", encoding="utf8")
    table = groups(open_page("corpus"))
    assert table.index.tolist() == [("places", "any"), ("places", "libraries")]
    (finished_workspace / "lexicon.csv").write_text("terms\n", encoding="utf8")
    assert "has the columns" in open_page("corpus").error[0].value
