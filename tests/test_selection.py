"""The selection of Explore as a queue of Review and as a file, the search as a part of it, and news of what others decide."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from biasdiff_core.audit import Audit
from biasdiff_core.plan import search_stage
from biasdiff_core.review.decisions import Decision
from biasdiff_core.review.history import origin_words
from biasdiff_core.workspace.audits import WORKSPACE_VARIABLE
from biasdiff_ui.auditors_view import news_words
from biasdiff_ui.downloads import FORMATS, selected_rows
from biasdiff_ui.examples import Duplicates, Examples
from biasdiff_ui.review_events import Judge, record_steps
from biasdiff_ui.review_queue import KINDS, Queue, Selection
from tests.app_pages import keyed, open_page, press
from tests.undecided import undecided_audit

SENTENCE = "Everyone knows that Belgians cannot be trusted with a spoon."


@pytest.fixture
def audit(finished_workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Audit:
    """A copy of the finished audit that the app looks at; its simulated decisions undone."""
    monkeypatch.setenv(WORKSPACE_VARIABLE, str(finished_workspace))
    return undecided_audit(finished_workspace)


def queue_of(app: AppTest) -> Queue:
    return app.session_state["review-queue"]  # type: ignore[no-any-return]


def said(app: AppTest) -> str:
    return "\n".join(element.value for element in app.markdown)


def containing(audit: Audit, word: str) -> list[str]:
    ranking = audit.ranking()
    return [str(id_) for id_ in ranking["id"][ranking["text"].str.contains(word)]]


def review_selection(app: AppTest) -> AppTest:
    """Review after the button of Explore, its plain buttons open."""
    app.session_state["native"] = True
    return press(app, "review-selection")


# --- to Review --------------------------------------------------------------------------------------------------------


def test_a_filtered_selection_is_reviewed_with_its_origin(audit: Audit) -> None:
    ids = containing(audit, "Belgians")
    app = review_selection(open_page(audit, "explore", link={"find": "Belgians"}))
    assert 2 < len(ids) < 40 and queue_of(app).ids == tuple(ids)
    assert f"**{len(ids)} examples** selected on explore · text\\: Belgians." in said(app)
    press(app, "native-biased")
    (held,) = audit.log.current().values()
    assert (held.example_id, held.verdict, held.inspected) == (ids[0], "biased", True)
    assert held.selection == {"queue": queue_of(app).kind, "page": "explore", "filter": {"text": "Belgians"}}
    assert origin_words(held.selection) == f"queue {queue_of(app).kind} · explore · text: Belgians"


def test_the_selection_stays_as_it_was_and_outlasts_the_session(audit: Audit) -> None:
    ids = containing(audit, "Belgians")
    audit.log.decide(ids[1], "unsure", "Ana")  # judged before: selected all the same
    press(review_selection(open_page(audit, "explore", link={"find": "Belgians"})), "native-biased")
    audit.log.decide(ids[2], "unsure", "Bo")
    again = open_page(audit, "review", link={"queue": KINDS["selection"]}, native=True)
    assert queue_of(again).ids == tuple(ids[1:])
    press(again, "native-biased")
    assert (audit.log.current()[ids[1]].selection or {})["filter"] == {"text": "Belgians"}
    assert queue_of(open_page(audit, "review", auditor="Bo", link={"queue": KINDS["selection"]})).ids == ()


def test_the_lasso_goes_with_what_was_selected(audit: Audit) -> None:
    points = pd.read_parquet(audit.artefact("map2d").path("map2d.parquet"))
    x0, x1 = points["x"].quantile([0.2, 0.7])
    area = {"brush_index": 0, "brush_type": "rect", "coord_range": [[x0, x1], [points["y"].min() - 1, points["y"].max() + 1]]}
    app = open_page(audit, "explore", **{f"map-{audit.artefact('ranking').key}": {"selection": {"selected": [], "areas": [area]}}})
    press(review_selection(app), "native-biased")
    assert set(queue_of(app).ids) == set(points["id"][points["x"].between(x0, x1)])
    (held,) = audit.log.current().values()
    assert held.selection is not None and held.selection["lasso"][0]["coord_range"][0] == np.round([x0, x1], 4).tolist()


def test_a_newer_selection_takes_the_place_of_the_older(audit: Audit) -> None:
    review_selection(open_page(audit, "explore", link={"find": "Belgians"}))
    app = review_selection(open_page(audit, "explore", link={"rank_to": "2"}, queue="mixed"))
    assert queue_of(app).ids == tuple(audit.ranking()["id"][:2])
    assert app.selectbox(key="queue").value == "selection"


def test_the_card_records_the_origin_of_its_own_queue_only(audit: Audit) -> None:
    ids = audit.ranking()["id"].tolist()
    selection = Selection(name="selection of today", ids=tuple(ids[:2]), origin={"page": "explore", "query": "x"})
    steps = [
        Judge(judged=((ids[number], "biased", ""),), queue=queue, last=number + 1) for number, queue in enumerate([selection.name, "mixed"])
    ]
    record_steps(audit.log, steps, "Ana", "card", selection)
    held = audit.log.current()
    assert held[ids[0]].selection == {"queue": selection.name, "page": "explore", "query": "x", "card": "card", "last": 1}
    assert held[ids[1]].selection == {"queue": "mixed", "card": "card", "last": 2}


def test_without_a_name_there_is_no_queue_of_ones_own(audit: Audit) -> None:
    assert open_page(audit, "explore", auditor="").button(key="review-selection").disabled


# --- the search -------------------------------------------------------------------------------------------------------


def test_what_a_sentence_found_is_selected_and_reviewed_nearest_first(audit: Audit) -> None:
    nearest = audit.search(SENTENCE, 50)["id"].tolist()
    app = open_page(audit, "explore", link={"found": "true", "rank_to": "20"}, sentence=SENTENCE)
    first = set(audit.ranking()["id"][:20])
    wanted = [id_ for id_ in nearest if id_ in first]
    assert "**20 of 40** shown · rank to\\: 20 · search\\: “Everyone knows" in said(app)
    press(press(app, "bulk-ask"), "bulk-yes")
    assert audit.log.actions()[-1].selection == {"page": "explore", "filter": {"rank_to": 20}, "query": SENTENCE}
    assert queue_of(review_selection(app)).ids == tuple(wanted) != tuple(audit.ranking()["id"][:20])


def test_what_a_sentence_found_can_be_removed(audit: Audit) -> None:
    audit.search(SENTENCE, 50)
    app = open_page(audit, "explore", link={"found": "true"}, sentence=SENTENCE)
    app.switch_page("pages/mitigate.py").run()
    keyed(app.radio, "mitigate_policy").set_value(keyed(app.radio, "mitigate_policy").options[2]).run()
    assert any("40 examples, as Explore showed them last\\: explore · search" in line.value for line in app.caption)


def test_one_opened_from_the_search_is_recorded_as_found_by_it(audit: Audit) -> None:
    found = audit.search(SENTENCE, 50)["id"].tolist()
    rank = audit.ranking()["id"].tolist().index(found[1]) + 1
    app = open_page(audit, "explore", sentence=SENTENCE, rank=rank)
    press(app, "one-biased")
    assert audit.log.current()[found[1]].selection == {"page": "explore", "filter": {}, "rank": rank}  # by number, or from the ranked table
    app.session_state[f"found-{search_stage(audit.folder, SENTENCE).key}"] = {"selection": {"rows": [1], "columns": [], "cells": []}}
    app.run()
    press(app, "one-biased")
    assert audit.log.current()[found[1]].selection == {"page": "explore", "query": SENTENCE, "rank": rank}


# --- as a file --------------------------------------------------------------------------------------------------------


@pytest.fixture
def examples() -> Examples:
    table = pd.DataFrame(
        {
            "rank": [1, 2, 3],
            "id": ["a", "b", "c"],
            "score": [0.1, 1 / 3e9, -0.5],
            "text": ["=HYPERLINK(1)", "naïve, “quoted”\nline", "/plain"],
            "source": ["@forum", "unknown", "unknown"],
            "group": "g",
            "label": [1.0, np.nan, 0.0],
            "bias_type": "age",
        }
    )
    return Examples(
        key="k", corpus_ids=("a", "b", "c"), table=table, probes={}, nearest=table, detection={}, duplicates=Duplicates([]), null=None
    )


def held(id_: str, reason: str) -> Decision:
    return Decision(
        example_id=id_, verdict="biased", auditor="Ana", reason=reason, created="", inspected=True, action_id="1", selection=None
    )


EXPECTED: list[dict[str, Any]] = [
    {"rank": 3, "id": "c", "score": -0.5, "text": "/plain", "source": "unknown", "group": "g", "bias_type": "age", "label": 0}
    | {"decision": "undecided", "auditor": "", "note": ""},
    {"rank": 2, "id": "b", "score": 1 / 3e9, "text": "naïve, “quoted”\nline", "source": "unknown", "group": "g", "bias_type": "age"}
    | {"label": None, "decision": "biased", "auditor": "Ana", "note": "-1+1"},
]


def test_selected_rows_as_json_lines_and_parquet_lose_nothing(examples: Examples) -> None:
    rows = selected_rows(examples, {"b": held("b", "-1+1")}, np.array([2, 1]))
    assert [json.loads(line) for line in FORMATS["JSONL"](rows).splitlines()] == EXPECTED
    back = pd.read_parquet(io.BytesIO(FORMATS["Parquet"](rows)))
    assert back.astype(object).where(back.notna(), None).to_dict("records") == EXPECTED


def test_no_cell_of_the_spreadsheet_starts_a_formula(examples: Examples) -> None:
    table = FORMATS["CSV"](selected_rows(examples, {"a": held("a", "+1"), "b": held("b", "")}, np.array([0, 1, 2])))
    back = pd.read_csv(io.BytesIO(table), dtype=str, keep_default_na=False)
    assert back.loc[0].tolist() == ["1", "a", "0.1", "'=HYPERLINK(1)", "'@forum", "g", "age", "1", "biased", "Ana", "'+1"]
    assert back["text"].tolist()[1:] == ["naïve, “quoted”\nline", "/plain"]
    assert back["label"].tolist() == ["1", "", "0"]
    assert back["score"].astype(float).tolist() == [0.1, 1 / 3e9, -0.5]


# --- news -------------------------------------------------------------------------------------------------------------


def test_what_another_decides_is_announced_and_shown_on_demand(audit: Audit) -> None:
    app = open_page(audit, "explore")
    assert not [button for button in app.button if button.key == "news"]
    drawn = audit.log.head()[0]
    audit.log.decide_many(audit.ranking()["id"][:3].tolist(), "biased", "Bo *x*")
    audit.log.undo("Bo *x*")
    audit.log.decide("".join(audit.ranking()["id"][3:4]), "biased", "Ana")
    assert news_words(audit.log.actions()[drawn:]) == "3 new decisions by Bo *x*, 1 new decision by Ana, 1 other action by Bo *x*"
