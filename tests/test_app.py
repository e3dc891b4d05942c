"""The app without a browser: every page on an empty workspace and on a finished audit."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from biasdiff_core.audit import Audit
from biasdiff_core.config import METHODS
from biasdiff_core.config.evaluation import AnswersConfig
from biasdiff_core.workspace.audits import AuditFolder, list_audits
from biasdiff_ui.state import STATE
from tests.app_pages import keyed
from tests.tiny_audit import QUESTIONS, write_corpus, write_held_out, write_pairs, write_probes, write_questions

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("audits", "corpus", "probes", "explore", "review", "mitigate", "compare")


def open_page(page: str, **state: object) -> AppTest:
    """The app on one of its pages, with these entries in the session's state.

    It goes through app.py, as a guarded visitor does; a later `run` is of the page alone (`AppTest` knows no `st.navigation`).
    """
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    if page != "audits":
        app.query_params["goto"] = page
    for name, value in state.items():
        app.session_state[name] = value
    return app.run()


def shown(app: AppTest) -> str:
    """Everything that Markdown and captions say, without the escapes."""
    return "\n".join(element.value for element in (*app.markdown, *app.caption, *app.info, *app.warning)).replace("\\", "")


@pytest.mark.parametrize("name", PAGES)
def test_every_page_on_an_empty_workspace_says_what_to_do(name: str, workspace: Path) -> None:
    app = open_page(name)
    assert not app.exception
    assert not app.error
    assert "audit" in shown(app).casefold()


@pytest.mark.parametrize("name", PAGES)
def test_every_page_opens_on_a_finished_audit(name: str, finished_workspace: Path) -> None:
    app = open_page(name)
    assert not app.exception
    assert not app.error
    assert list_audits(finished_workspace)[0].id in [box.value for box in app.sidebar.selectbox]


def test_a_ranking_that_was_lost_is_said_and_the_page_of_audits_stands(finished_workspace: Path) -> None:
    audit = Audit(list_audits(finished_workspace)[0])
    audit.artefact("ranking").path("ranking.parquet").unlink()
    app = open_page("audits")
    assert not app.exception
    assert ["ranking.parquet" in error.value.replace("\\", "") for error in app.error] == [True]
    assert "New audit" in [button.label for button in app.button]


@pytest.mark.parametrize("name", ["corpus", "probes", "mitigate", "compare"])
def test_pages_wait_for_an_analysis_that_has_not_run(name: str, workspace: Path, finished_audit: Audit) -> None:
    Audit.from_config(finished_audit.config, workspace)
    app = open_page(name)
    assert not app.exception
    assert app.info
    assert "run it on the Audits page" in shown(app)


def test_no_page_loads_torch(finished_workspace: Path) -> None:
    code = (
        "import sys; from tests.test_app import PAGES, open_page\n"
        "problems = [page for page in PAGES for app in [open_page(page)] if app.exception or app.error]\n"
        "print(sorted({'torch', 'transformers', 'peft'} & set(sys.modules)), problems)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[] []"


def test_the_content_warning_is_shown_once(workspace: Path) -> None:
    app = open_page("audits")
    app.button("content_warning").click().run()
    assert app.session_state[STATE.warned]
    assert "can be hurtful" not in shown(app)


def test_mitigating_needs_a_name(finished_workspace: Path) -> None:
    assert open_page("mitigate").button("freeze_and_run").disabled
    named = open_page("mitigate", **{STATE.auditor: "ana"})
    assert not named.button("freeze_and_run").disabled
    for method in ("retrain", "npo", "random"):
        keyed(named.checkbox, f"mitigate_{method}").uncheck()
    assert named.run().button("freeze_and_run").disabled


def test_mitigate_counts_what_the_policy_removes(finished_workspace: Path) -> None:
    app = open_page("mitigate")
    confirmed = sum(decision.verdict == "biased" for decision in Audit(list_audits(finished_workspace)[0]).log.current().values())
    assert f"{confirmed} examples of 40 would be removed" in shown(app)
    keyed(app.radio, "mitigate_policy").set_value(keyed(app.radio, "mitigate_policy").options[1]).run()
    keyed(app.slider, "mitigate_percent").set_value(100.0).run()
    # 24 of 40 were decided (60 %), all but the confirmed ones as not biased; the other 16 are undecided.
    assert f"{confirmed + 16} examples of 40 would be removed" in shown(app)
    assert f"{24 - confirmed} spared as false positives" in shown(app)


def test_compare_shows_every_figure_with_interval_items_and_convention(finished_workspace: Path) -> None:
    app = open_page("compare")
    assert any("Simulated" in warning.value for warning in app.warning)
    comparison = Audit(list_audits(finished_workspace)[0]).compare()
    assert [tab.label for tab in app.tabs] == ["CrowS-Pairs (paper)", "CrowS-Pairs (sum)", "Held-out text"]
    for tab, scoring in zip(app.tabs[:2], ("paper", "sum"), strict=True):
        scores = tab.dataframe[0].value.set_index("variant")
        assert scores.index.tolist() == ["base", "origin", "retraining", "NPO", "random removal", "items, n"]
        base = comparison.metrics["base"][f"crows_pairs.{scoring}.stereotype_score"]
        assert scores.loc["base", "stereotype score"] == f"{base.value:.1f} % [{base.low:.1f}, {base.high:.1f}]"
        assert scores.loc["items, n", "stereotype score"] == str(base.n)
        assert base.convention in "".join(element.value for element in tab.markdown).replace("\\", "")


def test_compare_shows_tests_in_words_and_all_notes(finished_workspace: Path) -> None:
    app = open_page("compare")
    tests = app.tabs[1].dataframe[1].value
    assert "NPO against origin" in tests["variant"].tolist()
    assert tests["difference [95 %]"].str.contains("no change|lower by|higher by").all()
    notes = Audit(list_audits(finished_workspace)[0]).compare().notes
    assert notes and all(note in shown(app) for note in notes)


def test_compare_shows_pairs_answers_and_the_predicted_effect(finished_workspace: Path) -> None:
    app = open_page("compare")
    assert "pairs of 15 flipped from origin to retraining" in shown(app)
    app.selectbox("flips_variant").set_value("origin").run()
    assert "of 15 flipped from base to origin" in shown(app)
    texts = [element.value for element in app.text]
    assert QUESTIONS[0]["prompt"] in texts  # quoted as it is, by an element that knows no markup
    app.selectbox("question").set_value(1).run()
    assert QUESTIONS[1]["prompt"] in [element.value for element in app.text]
    predicted = next(frame.value for frame in app.dataframe if "predicted (cosines)" in frame.value)
    assert predicted["variant"].tolist() == ["retraining", "random removal"]
    assert (predicted["predicted (cosines)"] < 0).all()
    assert "can be judged from 3 on" in shown(app)


def test_methods_stand_in_groups_with_their_costs(finished_workspace: Path) -> None:
    app = open_page("mitigate", **{STATE.auditor: "ana"})
    assert len(app.checkbox) == len(METHODS)
    assert all(keyed(app.checkbox, f"mitigate_{method}") for method in METHODS)
    assert "Other repairs" in [expander.label for expander in app.expander]
    assert shown(app).count("with its evaluation") >= 12  # MiniLM may not be installed
    assert "Retraining, NPO, random removal: about" in shown(app)
    keyed(app.checkbox, "mitigate_door").check().run()
    assert "Retraining, NPO, DOOR, random removal: about" in shown(app)


def test_the_corpus_is_searched_as_written(finished_workspace: Path) -> None:
    app = open_page("corpus")
    app.text_input("corpus_search").set_value("PENSIONERS never").run()
    assert "1 example of 40" in shown(app)
    app.text_input("corpus_search").set_value(".*").run()
    assert "0 examples of 40" in shown(app)


def _evaluation_form() -> None:
    import streamlit as st

    from biasdiff_core.config import EvaluationConfig
    from biasdiff_ui.evaluation_form import choose_evaluation

    st.session_state["found"] = choose_evaluation(EvaluationConfig())


def test_further_evaluations_are_checked_as_they_are_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = AppTest.from_function(_evaluation_form, default_timeout=60).run()
    app.text_input("new_pairs").set_value(str(write_pairs(tmp_path / "pairs.csv")))
    app.text_input("new_held_out").set_value(str(write_held_out(tmp_path / "heldout.txt"))).run()
    assert not app.error and app.session_state["found"].stereoset is None
    (tmp_path / "news.csv").write_text("3,A title,what it is about\n1,Another,and more\n", encoding="utf8")
    app.text_input("new_held_out").set_value(str(tmp_path / "news.csv")).run()
    assert "text" in app.error[0].value and app.session_state["found"] is None
    app.text_input("new_held_out_column").set_value("#2+#3").run()
    assert not app.error and app.session_state["found"].perplexity.text_column == "#2+#3"
    unreadable = {"stereoset": ("absent.json", "absent.json"), "seat": ("", "no files sent"), "trex": ("pairs.csv", "query")}
    for suite, (name, words) in unreadable.items():
        app.text_input(f"new_{suite}").set_value(str(tmp_path / name)).run()
        assert words in app.error[0].value.replace("\\", "")
        assert app.session_state["found"] is None
        app.text_input(f"new_{suite}").set_value("").run()
    app.text_input("new_lm_eval").set_value("arc_easy, hellaswag").run()
    assert app.session_state["found"].lm_eval.tasks == ("arc_easy", "hellaswag")
    with monkeypatch.context() as absent:
        absent.setitem(sys.modules, "lm_eval", None)  # as Python sees a package that is not there
        app.run()
        assert "pip install" in app.error[0].value.replace("\\", "")
    app.text_input("new_lm_eval").set_value("").run()
    how = app.segmented_control("new_answers_how")
    how.set_value(how.options[2]).run()
    app.text_input("new_answers").set_value(str(write_questions(tmp_path / "questions.jsonl"))).run()
    assert not app.error
    assert "To be run: 2 questions." in shown(app)
    assert app.session_state["found"].answers == AnswersConfig(path=str(tmp_path / "questions.jsonl"))


def _filled_form(data: Path, model: Path) -> AppTest:
    app = open_page("audits")
    for key, option in (("new_model_how", 1), ("new_corpus_how", 2), ("new_probes_how", 2)):
        group = app.segmented_control(key)
        group.set_value(group.options[option]).run()
    app.text_input("new_model").set_value(str(model))
    app.text_input("new_corpus_path").set_value(str(write_corpus(data / "corpus.csv")))
    app.text_input("new_probes_path").set_value(str(write_probes(data / "probes.csv")))
    app.text_input("new_pairs").set_value(str(write_pairs(data / "pairs.csv")))
    app.text_input("new_held_out").set_value(str(write_held_out(data / "heldout.txt")))
    return app.run()


def test_the_form_checks_data_and_says_what_it_will_cost(workspace: Path, tiny_model_folder: Path, tmp_path: Path) -> None:
    app = _filled_form(tmp_path, tiny_model_folder)
    assert not app.exception
    assert not app.error
    assert "40 examples of 40 rows can be used" in shown(app)
    assert "12 probes, 12 with an anti-stereotype twin, 3 bias types" in shown(app)
    assert "The whole audit takes about" in shown(app)
    app.text_input("new_name").set_value("No Such Name").run()
    assert "Use 1 to 48 small letters" in app.error[0].value
    app.text_input("new_corpus_path").set_value(str(tmp_path / "absent.csv")).run()
    assert any("absent" in error.value for error in app.error)
    assert not (workspace / "audits").exists()


HOSTILE = "![x](https://example.org/a.png) <img src=x onerror=alert(1)> :red[b] $a$ [c](https://example.org)"


def test_text_of_a_dataset_is_never_markup(workspace: Path, finished_audit: Audit, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "hostile.csv")
    corpus.write_text(corpus.read_text(encoding="utf8").replace("women", HOSTILE).replace("forum", HOSTILE), encoding="utf8")
    config = finished_audit.config
    audit = Audit.from_config(replace(config, name="hostile", corpus=replace(config.corpus, path=str(corpus))), workspace)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        audit.run()
    for name in PAGES:
        app = open_page(name, **{STATE.auditor: "ana"})
        assert not app.exception
        rendered = [*app.markdown, *app.caption, *app.info, *app.warning, *app.error, *app.success, *app.subheader, *app.header, *app.html]
        # Escaped, every bracket and angle has a backslash before it.
        assert not [e.value for e in rendered if re.search(r"(?<!\\)(!\[x\]|<img|:red\[b|\[c\]\()", e.value)], name


def test_every_shipped_page_begins_with_the_boot_guard() -> None:
    for path in (ROOT / "pages").glob("*.py"):
        assert f'require_boot("{path.stem}")' in path.read_text(encoding="utf8")
        assert len(path.read_text(encoding="utf8").splitlines()) <= 150


def test_an_audit_that_cannot_be_read_does_not_hide_the_others(finished_workspace: Path) -> None:
    broken = AuditFolder(finished_workspace / "audits" / "broken-000000")
    broken.path.mkdir()
    (broken.path / "audit.yaml").write_text("name: [", encoding="utf8")
    good = next(folder.id for folder in list_audits(finished_workspace) if folder.id != broken.id)
    app = open_page("audits", **{STATE.audit: good})
    assert not app.exception
    table = next(frame.value for frame in app.dataframe if "audit" in frame.value)
    assert set(table["audit"]) == {good, broken.id}
