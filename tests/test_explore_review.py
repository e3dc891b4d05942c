"""Explore and Review on a finished audit: filter, lasso, bulk with undo, single decisions, history; the folding of card events."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from streamlit.testing.v1 import AppTest

from biasdiff_core.attribution.clusters import cluster_words, clusters
from biasdiff_core.audit import Audit
from biasdiff_core.errors import DataError, ReviewError
from biasdiff_core.evidence import nearest_types
from biasdiff_core.results import MetricResult
from biasdiff_core.review.decisions import SIMULATED_AUDITOR, VERDICTS, DecisionLog
from biasdiff_core.review.design import mixed_order, uniform_order
from biasdiff_core.review.history import history, origin_words
from biasdiff_core.review.suggest import StopHint, StopRule
from biasdiff_core.workspace.audits import WORKSPACE_VARIABLE
from biasdiff_core.workspace.database import database
from biasdiff_ui import ranking_table
from biasdiff_ui.decide import PENDING, replaced_words
from biasdiff_ui.estimates import next_words, stop_words
from biasdiff_ui.examples import Duplicates, Examples, Probe, load_examples
from biasdiff_ui.explore_map import classes, drawn, map_spec
from biasdiff_ui.figures import figures_at, style_alarm
from biasdiff_ui.filters import COPIES, Filter, score_bounds
from biasdiff_ui.lasso import area_record, inside_areas, inside_polygon
from biasdiff_ui.ranking_table import in_order as sorted_rows
from biasdiff_ui.review_events import Event, Judge, TakeBack, acknowledged_number, fold_events, new_events, read_log, record_steps
from biasdiff_ui.review_queue import KINDS, in_order, queue_ids
from biasdiff_ui.verdicts import UNDECIDED
from biasdiff_ui.why import EXCERPT, evidence, other_records, probe_record, word_difference
from tests.app_pages import open_page, press
from tests.reference.filter_slow import passes_slow
from tests.reference.lasso_slow import inside_polygon_slow
from tests.reviews import decisions, review
from tests.undecided import undecided_audit

CARD, QUEUE = "1-2", "undecided"


# --- pages ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def audit(finished_workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Audit:
    """A copy of the finished audit that the app looks at; its simulated decisions undone."""
    monkeypatch.setenv(WORKSPACE_VARIABLE, str(finished_workspace))
    return undecided_audit(finished_workspace)


def table_of(app: AppTest) -> pd.DataFrame:
    return next(frame.value for frame in app.dataframe if "rank" in frame.value and "decision" in frame.value)


def said(app: AppTest) -> str:
    return "\n".join(element.value for kind in (app.markdown, app.caption, app.info, app.warning, app.error) for element in kind)


def test_filters_chain(audit: Audit) -> None:
    app = open_page(audit, "explore")
    ranking = audit.ranking()
    assert table_of(app)["rank"].tolist() == list(range(1, 41))
    app.text_input(key="find").set_value("BELGIANS").run()
    app.multiselect(key="from").set_value(["forum"]).run()
    expected = ranking[ranking["text"].str.contains("Belgians") & (ranking["source"] == "forum")]
    assert len(expected) == 4
    assert table_of(app)["text"].tolist() == expected["text"].tolist()
    assert f"**{len(expected)} of 40** shown" in said(app)


def test_a_deep_link_restores_every_filter_and_the_order(audit: Audit) -> None:
    ranking = audit.ranking()
    audit.log.decide_many(ranking["id"][:30].tolist(), "biased", "Bo")
    tables = audit.artefact("scores").path("top_probes.parquet"), audit.artefact("probes").path("probes.parquet")
    types = nearest_types(*map(pd.read_parquet, tables))[ranking["id"]].to_numpy()
    wanted = (
        ranking["text"].str.contains("canal|birches|know", regex=True)
        & ranking["source"].isin(["forum", "paper"])
        & ranking["group"].isin(["women", "Belgians"])
        & pd.Series(types).isin(sorted(set(types))[:2])
        & ranking["rank"].between(2, 30)
    )
    link: dict[str, str | list[str]] = {
        "find": "CANAL|birches|know",
        "regex": "true",
        "from": ["forum", "paper"],
        "about": ["women", "Belgians"],
        "type": sorted(set(types))[:2],
        "decision": "biased",
        "by": "Bo",
        "rank_from": "2",
        "rank_to": "30",
        "copies": "one of each",
        "descending": "true",
    }
    app = open_page(audit, "explore", link=link)
    assert 0 < wanted.sum() < 30
    assert table_of(app)["rank"].tolist() == ranking["rank"][wanted].tolist()[::-1]
    assert f"**{wanted.sum()} of 40** shown" in said(app)


def test_clusters_of_the_map_are_a_filter_while_they_colour_it(audit: Audit) -> None:
    points = pd.read_parquet(audit.artefact("map2d").path("map2d.parquet")).set_index("id")
    ranking = audit.ranking()
    codes = clusters(points.loc[ranking["id"]].to_numpy(), 7, seed=0)
    names = np.array(cluster_words(ranking["text"].tolist(), codes))
    app = open_page(audit, "explore", link={"colour": "cluster", "cluster": [names[codes][0], names[1]]})
    expected = np.isin(names[codes], [names[codes][0], names[1]])
    assert 0 < expected.sum() < 40
    assert table_of(app)["rank"].tolist() == ranking["rank"][expected].tolist()
    assert f"**{expected.sum()} of 40** shown · cluster" in said(app)
    app.segmented_control(key="colour").set_value("group").run()
    assert "**40 of 40** shown" in said(app)


def test_what_is_no_regular_expression_selects_nothing(audit: Audit) -> None:
    app = open_page(audit, "explore", link={"find": "(", "regex": "true"})
    assert "is no regular expression" in said(app)
    assert "**0 of 40** shown" in said(app)


def test_a_page_of_the_table_is_all_that_is_sent(audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking_table, "PAGE_ROWS", 15)
    app = open_page(audit, "explore")
    assert table_of(app)["rank"].tolist() == list(range(1, 16))
    app.toggle(key="descending").set_value(True).run()
    assert table_of(app)["rank"].tolist() == list(range(40, 25, -1))
    app.selectbox(key="sort").set_value("rank by length").run()
    scores = pd.read_parquet(audit.artefact("scores").path("scores.parquet")).set_index("id")["length"]
    by_length = scores[audit.ranking()["id"]].rank(ascending=False, method="min").astype(int)
    assert table_of(app)["rank by length"].tolist() == sorted(by_length, reverse=True)[:15]
    assert all(len(frame.value) <= 15 for frame in app.dataframe)


def test_bulk_asks_counts_records_and_is_undone_whole(audit: Audit) -> None:
    app = open_page(audit, "explore")
    app.text_input(key="find").set_value("never pay back").run()
    press(app, "bulk-ask")
    assert audit.log.current() == {}
    assert "Label 3 examples as biased, without having inspected them one by one?" in said(app)
    press(app, "bulk-yes")
    decisions = audit.log.current()
    assert {d.verdict for d in decisions.values()} == {"biased"}
    assert len(decisions) == 3
    assert not any(d.inspected for d in decisions.values())
    assert next(iter(decisions.values())).selection == {"page": "explore", "filter": {"text": "never pay back"}}
    assert PENDING not in app.session_state
    press(app, "undo")
    assert audit.log.current() == {}
    assert app.button(key="undo").disabled


def test_bulk_shows_what_it_would_label_and_replace(audit: Audit) -> None:
    ranked = audit.ranking()["id"].tolist()
    audit.log.decide_each([(ranked[0], "not_biased", ""), (ranked[1], "unsure", ""), (ranked[30], "unsure", "")], "Bo")
    audit.log.decide_many(ranked[2:5], "biased", "Bo")
    app = open_page(audit, "explore")
    app.slider(key="percent").set_value(25.0).run()
    app.radio(key="bulk-target").set_value(app.radio(key="bulk-target").options[1]).run()
    press(app, "bulk-ask")
    assert "Replaces 2 verdicts given **one by one**: 1 not biased, 1 unsure." in said(app)
    assert "Replaces 3 verdicts given in bulk: 3 biased." in said(app)
    top = audit.artefact("scores").path("top_probes.parquet")
    types = nearest_types(pd.read_parquet(top), pd.read_parquet(audit.artefact("probes").path("probes.parquet")))
    counts = types[ranked[:10]].value_counts()
    line = next(text for text in said(app).splitlines() if text.startswith("Bias types"))
    assert all(f"{number} {kind}" in line for kind, number in counts.items())
    first = next(frame.value for frame in app.dataframe if list(frame.value) == ["rank", "text", "bias type"])
    assert first["rank"].tolist() == [1, 2, 3, 4, 5]
    assert "The first 5 of 10." in said(app)


def test_verdicts_that_the_auditor_may_not_see_are_only_counted() -> None:
    made = decisions({0: "biased", 1: "not_biased"}) | decisions({2: "unsure"}, inspected=False)
    visible = {id_: decision for id_, decision in made.items() if id_ != "e1"}
    assert replaced_words(["e0", "e1", "e2", "e9"], made, visible) == [
        "Replaces 1 verdict given **one by one**: 1 biased.",
        "Replaces 1 verdict given in bulk: 1 unsure.",
        "Replaces 1 verdict of others that you see after your own review of these.",
    ]
    assert replaced_words(["e9"], made, made) == []


def test_the_notice_takes_back_its_own_action_and_restores_it(audit: Audit) -> None:
    app = press(open_page(audit, "explore", rank=1), "one-biased")
    audit.log.decide(audit.ranking()["id"][5], "unsure", "Ana")  # in another tab, later
    press(app, "notice-undo")
    assert [decision.verdict for decision in audit.log.current().values()] == ["unsure"]
    assert app.button(key="notice-undo").label == "Restore"
    press(app, "notice-undo")
    assert {decision.verdict for decision in audit.log.current().values()} == {"biased", "unsure"}
    press(app, "notice-close")
    assert not [button for button in app.button if button.key == "notice-undo"]
    assert audit.log.verify() == []


def test_bulk_keeps_what_was_asked_when_the_filter_moves_on(audit: Audit) -> None:
    app = open_page(audit, "explore")
    app.text_input(key="find").set_value("never pay back").run()
    press(app, "bulk-ask")
    app.text_input(key="find").set_value("").run()
    press(app, "bulk-yes")
    assert len(audit.log.current()) == 3


def test_the_top_of_the_ranking_in_bulk(audit: Audit) -> None:
    app = open_page(audit, "explore")
    app.slider(key="percent").set_value(25.0).run()
    target = app.radio(key="bulk-target")
    target.set_value(target.options[1]).run()
    app.selectbox(key="bulk-verdict").set_value("not_biased").run()
    press(press(app, "bulk-ask"), "bulk-yes")
    decisions = audit.log.current()
    assert set(decisions) == set(audit.ranking()["id"][:10])  # 25 % of 40
    assert {(d.verdict, d.selection["top_percent"]) for d in decisions.values() if d.selection} == {("not_biased", 25.0)}


def test_a_row_opens_in_place_and_is_decided_as_inspected(audit: Audit) -> None:
    app = open_page(audit, "explore")
    app.number_input(key="rank").set_value(7).run()
    row = audit.ranking().iloc[6]
    assert row["text"] in [element.value for element in app.text]
    press(app, "one-neutral_but_influential")
    (decision,) = audit.log.current().values()
    assert (decision.example_id, decision.verdict, decision.inspected) == (row["id"], "neutral_but_influential", True)
    assert decision.selection == {"page": "explore", "filter": {}, "rank": 7}


def test_the_lasso_selects_what_numpy_says(audit: Audit) -> None:
    ranking = audit.artefact("ranking")
    points = pd.read_parquet(audit.artefact("map2d").path("map2d.parquet"))
    x0, x1 = points["x"].quantile([0.2, 0.7])
    low, high = points["y"].min() - 1, points["y"].max() + 1
    polygon = [[x0, low], [x1, low], [x1, high], [x0, high]]
    area = {"brush_index": 0, "brush_type": "polygon", "coord_range": polygon}
    app = open_page(audit, "explore", **{f"map-{ranking.key}": {"selection": {"selected": [], "areas": [area]}}})
    expected = set(points["id"][[inside_polygon_slow(x, y, polygon) for x, y in zip(points["x"], points["y"], strict=True)]])
    assert 0 < len(expected) < 40
    assert f"**{len(expected)} of 40 selected** by the lasso" in said(app)
    press(press(app, "bulk-ask"), "bulk-yes")
    assert set(audit.log.current()) == expected


def test_the_history_says_who_what_and_from_where(audit: Audit) -> None:
    audit.log.decide_many(audit.ranking()["id"][:5].tolist(), "unsure", "Bo", "", {"page": "explore", "filter": {"text": "x"}})
    app = open_page(audit, "explore", history=True)
    shown = next(frame.value for frame in app.dataframe if "who" in frame.value)
    assert shown["who"].tolist() == ["Bo", SIMULATED_AUDITOR, SIMULATED_AUDITOR]
    assert shown["what"].tolist()[:2] == ["5 unsure, in bulk", "undid action 1"]
    assert shown["from"].tolist()[0] == "explore · text: x"
    assert shown["state"].tolist() == ["holds", "holds", "undone by action 2"]


def select_in_history(app: AppTest, audit: Audit, row: int, page: int = 1) -> AppTest:
    app.session_state[f"history-{audit.log.head()[1][:8]}-{page}"] = {"selection": {"rows": [row], "columns": []}}
    return app.run()


def test_any_action_is_undone_and_restored_from_the_history(audit: Audit) -> None:
    first = audit.ranking()["id"][0]
    other = audit.log.decide(first, "biased", "Bo")
    for _ in range(35):
        audit.log.decide(first, "unsure", "Ana")
    app = open_page(audit, "review", history=True)
    assert len(next(frame.value for frame in app.dataframe if "who" in frame.value)) == 30
    app.session_state["history-page"] = 2
    # 38 actions, newest first: row 5 of the second page is the 36th of them, action 3.
    select_in_history(app, audit, 5, page=2)
    assert "Action 3 of Bo\\: 1 biased; holds" in said(app)
    press(app, "history-undo")
    assert audit.log.actions()[-1].undoes == other.action_id
    select_in_history(app, audit, 6, page=2)
    assert app.button(key="history-undo").label == "Restore"
    press(app, "history-undo")
    assert history(audit.log)[0].what == "restored action 3"
    assert (len(audit.log.actions()), audit.log.verify()) == (40, [])


@pytest.mark.parametrize("page", ["explore", "review"])
def test_without_a_name_nothing_can_be_decided(audit: Audit, page: str) -> None:
    app = open_page(audit, page, auditor="", rank=1)
    assert "Give your name in the sidebar first" in said(app)
    keys = {button.key or "" for button in app.button}
    assert not any(key.startswith(("one-", "bulk-", "native-")) for key in keys)


def test_native_buttons_decide_the_shown_example_and_go_on(audit: Audit) -> None:
    app = open_page(audit, "review", native=True)
    ids = audit.ranking()["id"].tolist()
    app.selectbox(key="native-reason").set_value("stereotype").run()
    press(press(press(app, "native-biased"), "native-skip"), "native-not_biased")
    decisions = audit.log.current()
    assert {id_: (d.verdict, d.inspected, d.auditor) for id_, d in decisions.items()} == {
        ids[0]: ("biased", True, "Ana"),
        ids[2]: ("not_biased", True, "Ana"),
    }
    assert decisions[ids[0]].reason == "stereotype"
    assert decisions[ids[0]].selection == {"queue": "mixed"}
    assert "**2 decisions** in this session" in said(app)


def test_what_is_drawn_at_random_is_recorded_as_such(audit: Audit) -> None:
    app = open_page(audit, "review", native=True)
    ids, drawn = mixed_order(audit.ranking()["id"].tolist(), audit.folder.id)
    for _ in range(5):
        press(app, "native-not_biased")
    decisions = audit.log.current()
    assert set(decisions) == set(ids[:5])
    expected = {id_: {"queue": "mixed"} for id_ in ids[:4]} | {ids[4]: {"queue": "mixed", "drawn": [ids[4]], "seed": audit.folder.id}}
    assert ids[4] in drawn
    assert {id_: d.selection for id_, d in decisions.items()} == expected


def test_the_estimates_stand_below_the_card(audit: Audit) -> None:
    app = open_page(audit, "review", native=True)
    assert "Precision" not in said(app)  # nothing is inspected
    for _ in range(10):
        press(app, "native-biased")
    assert "Biased: **10 found**" in said(app)
    # All 10 inspected are biased: rate 10.5 / 11 about every rank. The mean of 30 more is 28.6, the median 30 (beta-binomial).
    assert "Review 30 more → about **30 [" in said(app)
    assert "Not yet: at least 95 % of the biased examples, with 95 % confidence, takes" in said(app)
    app.number_input(key="next").set_value(10).run()
    assert "Review 10 more → about **10 [" in said(app)
    assert f"Go on with the queue *{KINDS['mixed']}*" in said(app)
    audit.log.decide_each([(id_, "not_biased", "") for id_ in audit.ranking()["id"] if id_ not in audit.log.current()], "Ana")
    app.run()
    assert "**10 found**, **0 [0, 0] left**" in said(app)
    assert "**Enough: found are at least 95 %" in said(app)


def test_what_is_to_be_found_is_chosen_before_and_a_later_change_is_said(audit: Audit) -> None:
    app = open_page(audit, "review", native=True)
    assert app.button(key="rule-record").disabled
    app.selectbox(key="rule-target").set_value(0.9).run()
    press(app, "rule-record")
    assert audit.log.actions()[-1].selection == {"target": 0.9, "confidence": 0.95}
    press(app, "native-biased")
    assert "Not yet: at least 90 % of the biased examples, with 95 % confidence, takes" in said(app)
    assert "Changed after the review" not in said(app)
    app.selectbox(key="rule-confidence").set_value(0.8).run()
    press(app, "rule-record")
    assert "Changed after the review had begun" in said(app)


def test_the_queue_is_frozen_until_it_is_refreshed(audit: Audit) -> None:
    app = open_page(audit, "review", native=True)
    ids = audit.ranking()["id"].tolist()
    audit.log.decide(ids[1], "biased", "Bo")
    press(app, "native-biased")
    texts = audit.ranking()["text"].tolist()
    assert [element.value for element in app.text] == [texts[1]]
    next(button for button in app.button if button.label == "Refresh the queue").click().run()
    assert [element.value for element in app.text] == [texts[2]]


# --- filter, lasso, map -----------------------------------------------------------------------------------------------


ROWS = pd.DataFrame(
    {
        "rank": [1, 2, 3],
        "score": [0.3, 0.2, 0.1],
        "text": ["a cat", "a dog", "Cats (2)"],
        "prompt": [None, "Which pet?", None],
        "source": list("xyx"),
        "group": "g",
        "bias_type": ["age", "age", "gender"],
        "copy": [1, 0, 2],
        "cluster": ["cats, pets", "dogs", "cats, pets"],
    }
)
HELD = pd.Series(pd.Categorical(["biased", UNDECIDED, UNDECIDED], [UNDECIDED, *VERDICTS]))
BY = pd.Series(pd.Categorical(["Ana", "", ""], ["", "Ana"]))


@pytest.mark.parametrize(
    ("chosen", "passing"),
    [
        (Filter(), [1, 2, 3]),
        (Filter(text=" CAT"), [1, 3]),
        (Filter(text="which"), [2]),  # in the prompt
        (Filter(text="(2"), [3]),  # no regular expression
        (Filter(text="^a (cat|cow)|pet.$", regex=True), [1, 2]),
        (Filter(verdicts=(UNDECIDED,), sources=("x",)), [3]),
        (Filter(bias_types=("age",), groups=("g",)), [1, 2]),
        (Filter(low=0.2, high=0.3), [1, 2]),
        (Filter(first=2), [2, 3]),
        (Filter(first=2, last=2), [2]),
        (Filter(auditors=("Ana",)), [1]),
        (Filter(copies="repeated"), [1, 3]),
        (Filter(copies="one of each"), [1, 2]),
        (Filter(clusters=("cats, pets",), last=2), [1]),
    ],
)
def test_filter_by_hand(chosen: Filter, passing: list[int]) -> None:
    assert ROWS["rank"][chosen.mask(ROWS, HELD, BY)].tolist() == passing


def test_what_a_filter_records() -> None:
    assert Filter(text=" ", regex=True, low=0.0, sources=("x",)).record() == {"source": ["x"], "score_from": 0.0}
    every = Filter(text="(a|b) ", regex=True, first=3, auditors=("Ana",), copies="repeated", bias_types=("age",))
    assert every.record() == {
        "text": "(a|b)",
        "regex": True,
        "bias_type": ["age"],
        "rank_from": 3,
        "decided_by": ["Ana"],
        "copies": "repeated",
    }


def test_what_is_no_regular_expression_is_refused() -> None:
    with pytest.raises(DataError, match="'\\(' is no regular expression"):
        Filter(text="(", regex=True).mask(ROWS, HELD, BY)


words = st.text("aAbÉé (.", max_size=6)
names = st.sampled_from("xyz")


@st.composite
def tables(draw: st.DrawFn) -> pd.DataFrame:
    size = draw(st.integers(1, 12))

    def column(values: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(values, min_size=size, max_size=size))

    return pd.DataFrame(
        {
            "rank": range(1, size + 1),
            "score": sorted(column(st.floats(-1, 1)), reverse=True),
            "text": column(words),
            "prompt": column(st.none() | words),
            "source": column(names),
            "group": column(names),
            "bias_type": column(names),
            "copy": column(st.integers(0, 3)),
            "cluster": column(names),
            "verdict": column(st.sampled_from([UNDECIDED, *VERDICTS])),
            "auditor": column(st.sampled_from(["", "Ana", "Bo"])),
        }
    )


some_names = st.lists(names, max_size=2).map(tuple)
filters = st.builds(
    Filter,
    text=words,
    verdicts=st.lists(st.sampled_from([UNDECIDED, *VERDICTS]), max_size=2).map(tuple),
    bias_types=some_names,
    sources=some_names,
    groups=some_names,
    clusters=some_names,
    low=st.none() | st.floats(-1, 1),
    high=st.none() | st.floats(-1, 1),
    first=st.none() | st.integers(1, 12),
    last=st.none() | st.integers(1, 12),
    auditors=st.lists(st.sampled_from(["Ana", "Bo"]), max_size=2).map(tuple),
    copies=st.sampled_from(COPIES),
)


@settings(deadline=None)
@given(tables(), filters)
def test_a_filter_is_what_its_slow_twin_says(table: pd.DataFrame, chosen: Filter) -> None:
    verdicts, auditors = (table[name].astype("category") for name in ("verdict", "auditor"))
    assert chosen.mask(table, verdicts, auditors).tolist() == [passes_slow(chosen, row) for row in table.to_dict("records")]


@settings(deadline=None)
@given(tables(), filters, st.sampled_from(["source", "copy", "rank", "decision"]), st.booleans())
def test_sorting_keeps_every_row_and_ties_by_rank(table: pd.DataFrame, chosen: Filter, column: str, descending: bool) -> None:
    verdicts = pd.Series(pd.Categorical(table["verdict"], [UNDECIDED, *VERDICTS]))
    shown = table[chosen.mask(table, verdicts, table["auditor"])]
    places = [UNDECIDED, *VERDICTS].index
    slow = [(places(row["verdict"]) if column == "decision" else row[column], row["rank"]) for row in shown.to_dict("records")]
    slow.sort(key=lambda pair: pair[0], reverse=descending)  # stable: ties stay by rank
    assert sorted_rows(shown, verdicts, column, descending)["rank"].tolist() == [rank for _, rank in slow]


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), min_size=2, max_size=4, unique=True), max_size=4), st.permutations(range(10)))
def test_duplicates_are_the_others_of_the_last_group(groups: list[list[int]], order: list[int]) -> None:
    found = Duplicates([[str(number) for number in group] for group in groups])
    whole = {str(number): [str(other) for other in group] for group in groups for number in group}
    assert {id_: set(others) for id_, others in found.items()} == {id_: set(group) - {id_} for id_, group in whole.items()}
    ids = [str(number) for number in order]
    for place, number in enumerate(found.numbered(ids)):
        group = last_group(groups, ids[place])
        before = [i for i in ids[: place + 1] if group is not None and last_group(groups, i) == group]
        assert number == len(before)


def last_group(groups: list[list[int]], id_: str) -> int | None:
    return next((n for n in range(len(groups) - 1, -1, -1) if int(id_) in groups[n]), None)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20))
@example([0.0, 5e-324])
@example([1000.0, -5e-324])
def test_score_bounds_hold_all_scores(scores: list[float]) -> None:
    low, high, step = score_bounds(scores)
    assert low <= min(scores)
    assert high >= max(scores)
    assert step > 0


coordinate = st.integers(-40, 40).map(lambda n: n / 8)


@given(st.lists(st.tuples(coordinate, coordinate), max_size=60), st.lists(st.tuples(coordinate, coordinate), min_size=3, max_size=12))
def test_polygon_membership_equals_one_point_at_a_time(points: list[tuple[float, float]], corners: list[tuple[float, float]]) -> None:
    x, y = np.array([p[0] for p in points]), np.array([p[1] for p in points])
    assert inside_polygon(x, y, corners).tolist() == [inside_polygon_slow(*point, corners) for point in points]


def test_areas_unite_and_are_recorded_as_plain_values() -> None:
    x, y = np.array([0.5, 2.5, 9.0, np.nan]), np.array([0.5, 2.5, 9.0, 0.5])
    areas = [
        {"brush_index": 0, "brush_type": "rect", "coord_range": [[1, 0], [0, 1]]},
        {"brush_index": 1, "brush_type": "polygon", "coord_range": [[2, 2], [3, 2], [3, 3.00004], [2, 3]]},
    ]
    assert inside_areas(x, y, areas).tolist() == [True, True, False, False]
    assert inside_areas(x, y, []).tolist() == [False] * 4
    assert area_record(areas)[1] == {"brush_type": "polygon", "coord_range": [[2, 2], [3, 2], [3, 3], [2, 3]]}


def test_what_is_drawn_holds_all_of_interest() -> None:
    rank, decided = np.arange(1, 1001), np.zeros(1000, dtype=bool)
    decided[900] = True
    keep = drawn(rank, decided, cut=100, limit=300)
    assert keep.sum() == 300
    assert keep[:100].all()
    assert keep[900]
    assert drawn(rank, decided, cut=100).all()


def test_classes_of_the_map() -> None:
    table = pd.DataFrame(
        {"rank": [1, 2, 3, 4, 5, 8, 9], "label": [1, 0, np.nan, 1, 0, 0, 0], "source": list("aabbccc"), "bias_type": list("uuvuuuu")}
    )
    verdicts = pd.Series([UNDECIDED, *VERDICTS, UNDECIDED, UNDECIDED])
    assert classes(table, verdicts, "influence", cut=4).codes.tolist() == [0, 0, 1, 1, 2, 2, 3]
    assert classes(table, verdicts, "decision", cut=4).codes.tolist() == [0, 1, 2, 3, 4, 0, 0]
    labels = classes(table, verdicts, "known label", cut=4)
    assert [labels.words[code] for code in labels.codes[:3]] == ["biased", "not biased", "unknown"]
    types = classes(table, verdicts, "bias type", cut=4)
    assert [types.words[code] for code in types.codes] == list("uuvuuuu")
    many = pd.DataFrame({"source": [f"s{n}" for n in range(10)]})
    assert classes(many, verdicts, "source", cut=1).words[-1] == "other"


@settings(deadline=None)
@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=30))
def test_the_map_sends_each_point_once_the_rarest_class_last(sources: list[str]) -> None:
    table = pd.DataFrame({"x": np.arange(len(sources), dtype=float), "y": 0.0, "rank": range(1, len(sources) + 1), "source": sources})
    spec = map_spec(table, classes(table, pd.Series(dtype=str), "source", cut=1))
    sent = {series["name"]: spec["dataset"][series["datasetIndex"]]["source"]["x"].tolist() for series in spec["series"]}
    assert sent == {name: [float(x) for x, source in enumerate(sources) if source == name] for name in set(sources)}
    sizes = [len(points) for points in sent.values()]  # drawn in this order
    assert sizes == sorted(sizes, reverse=True)


def test_style_alarm_sounds_when_intervals_overlap() -> None:
    def area(name: str, low: float, value: float, high: float) -> MetricResult:
        return MetricResult(name=name, value=value, low=low, high=high, n=9, convention="")

    figures = {"detection.score.auroc": area("score", 0.8, 0.9, 0.95), "detection.length.auroc": area("length", 0.6, 0.7, 0.79)}
    figures["detection.unigram.auroc"] = area("unigram", 0.5, 0.6, 0.7)
    assert style_alarm(figures)[0] == "quiet"
    figures["detection.length.auroc"] = area("length", 0.6, 0.7, 0.8)
    assert style_alarm(figures)[0] == "alarm"
    assert "Length alone ranks as well as influence here" in style_alarm(figures)[1]
    assert style_alarm({})[0] == "not known"


def test_without_labels_the_figures_are_those_of_the_review() -> None:
    examples = unlabelled("abcdefgh")
    by_rank = [(0, True, False), (1, False, False), (2, True, False)]
    coverage, precision = figures_at(examples, review(8, by_rank), cut=3)
    assert (coverage.value, precision.value, precision.n) == (None, 2 / 3, 3)  # nothing is drawn beyond the cut
    coverage, _ = figures_at(examples, review(8, [*by_rank, *[(place, False, True) for place in range(3, 8)]]), cut=2)
    assert coverage.value == pytest.approx(0.5)  # all is inspected: of the 2 biased ones 1 lies within


def unlabelled(ids: str) -> Examples:
    table = pd.DataFrame({"rank": range(1, len(ids) + 1), "id": list(ids), "label": np.nan})
    return Examples(
        key="k", corpus_ids=tuple(ids), table=table, probes={}, nearest=pd.DataFrame(), detection={}, duplicates=Duplicates([]), null=None
    )


def test_word_difference_by_hand() -> None:
    found = word_difference("Old men cannot SWIM.", "Young men cannot swim, ever!")
    assert found == (("Young ", False), ("men cannot swim, ", True), ("ever!", False))
    assert word_difference("anything", "") == ()


@given(st.text(max_size=60), st.text(max_size=60))
def test_the_pieces_of_a_difference_are_the_probe(text: str, probe: str) -> None:
    assert "".join(piece for piece, _ in word_difference(text, probe)) == probe


def test_a_probe_and_its_twin_are_marked_where_they_differ() -> None:
    text, twin = probe_record(Probe(text="Old men lie.", twin="Young men lie.", bias_type="age"))[:2]
    assert (text, twin) == ((("Old ", False), ("men lie.", True)), (("Young ", False), ("men lie.", True)))
    assert probe_record(Probe(text="Old men lie.", twin="", bias_type="age")) == [[["Old men lie.", True]], [], "age"]


def test_neighbours_on_the_map_by_hand() -> None:
    """a, b and c lie at one place, d a step away, e three; f has no place."""
    places = pd.DataFrame({"x": [0, 0, 0, 1, 3, np.nan], "y": [0, 0, 0, 0, 0, np.nan]})
    found = unlabelled("abcdef")
    mapped = replace(found, table=found.table.join(places))
    assert set(mapped.map_neighbours("a", 2)) == {"b", "c"}
    assert mapped.map_neighbours("e", 2)[0] == "d"
    assert set(mapped.map_neighbours("d", 9)) == {"a", "b", "c", "e"}
    assert mapped.map_neighbours("f", 2) == found.map_neighbours("a", 2) == ()


def test_others_come_with_rank_beginning_and_decision(log: DecisionLog) -> None:
    found = unlabelled("abc")
    examples = replace(found, table=found.table.assign(text=["short", "x" * (EXCERPT + 1), "not named"]))
    log.decide("b", "not_biased", "Ana")
    cards = [{"duplicates": ("a",), "neighbours": ("b", "a")}, {"duplicates": (), "neighbours": ("b",)}]
    assert other_records(examples, cards, log.current()) == {"a": [1, "short", "undecided"], "b": [2, "x" * EXCERPT + " …", "not biased"]}


def test_twins_cosines_are_shown_where_they_are_known(audit: Audit) -> None:
    examples = load_examples(audit, audit.plan())
    assert examples is not None
    first = examples.ids[0]
    table = pd.read_parquet(audit.artefact("scores").path("top_probes.parquet")).set_index(["id", "place"])
    known = evidence(examples, first).nearest
    assert [near.twin_cosine for near in known] == pytest.approx(table["twin_cosine"].loc[first].tolist())
    older = replace(examples, nearest=examples.nearest.assign(twin_cosine=np.nan))
    assert [near.twin_cosine for near in evidence(older, first).nearest] == [None] * len(known)
    assert [near.cosine for near in evidence(older, first).nearest] == [near.cosine for near in known]


def test_origin_in_words() -> None:
    selection = {"page": "explore", "filter": {"group": ["a", "b"], "score_from": 0.1}, "lasso": [{}], "card": "1-2", "last": 3}
    assert origin_words(selection) == "explore · group: a, b · score from: 0.1 · lasso of 1 area"
    assert origin_words({"page": "explore", "top_percent": 35.0}) == "explore · top 35 %"
    assert origin_words(None) == ""


# --- events of the card -----------------------------------------------------------------------------------------------


TOKEN = "made-once"
SENT = {"number": 1, "kind": "biased", "example": "a", "place": 0, "queue": QUEUE, "token": TOKEN}
WHOSE = {"audit": "/audits/a", "auditor": "Ana", "card": CARD}


def event(number: int, kind: str, example: str, place: int = 0) -> Event:
    return Event(number=number, kind=kind, example=example, place=place, queue=QUEUE, token=TOKEN)


def judged(*pairs: tuple[str, str], last: int) -> Judge:
    return Judge(judged=tuple((example, verdict, "") for example, verdict in pairs), queue=QUEUE, last=last)  # type: ignore[misc]


def test_verdicts_in_a_row_are_one_action() -> None:
    events = [event(1, "biased", "a"), event(2, "skip", "b"), event(3, "unsure", "c")]
    assert fold_events(events) == [judged(("a", "biased"), ("c", "unsure"), last=3)]
    assert fold_events([event(1, "skip", "a"), event(2, "back", "a")]) == []


def test_an_undo_before_the_record_removes_and_after_it_takes_back() -> None:
    assert fold_events([event(1, "biased", "a"), event(2, "undo", "a"), event(3, "not_biased", "a")]) == [
        judged(("a", "not_biased"), last=3)
    ]
    events = [event(4, "biased", "d"), event(5, "undo", "d"), event(6, "undo", "c"), event(7, "unsure", "c")]
    assert fold_events(events) == [TakeBack(example="c", last=6), judged(("c", "unsure"), last=7)]
    taken_back = [judged(("d", "biased"), last=1), TakeBack(example="c", last=2)]
    assert fold_events([event(1, "biased", "d"), event(2, "undo", "c")]) == taken_back
    events = [event(1, "biased", "a"), event(2, "unsure", "b"), event(3, "undo", "b"), event(4, "skip", "b")]
    assert fold_events(events) == [judged(("a", "biased"), last=4)]  # none of the four is to come again


def test_events_come_again_out_of_order_and_count_once() -> None:
    sent = [event(3, "biased", "c"), event(1, "biased", "a"), event(2, "unsure", "b"), event(3, "biased", "c")]
    assert [e.number for e in new_events(sent, acknowledged=1)] == [2, 3]
    assert new_events(sent, acknowledged=3) == []


@pytest.mark.parametrize("events", [[{"number": 1}], [{**SENT, "number": "x"}], [None], None])
def test_what_no_card_sends_is_refused(events: Any) -> None:
    with pytest.raises(ReviewError, match="cannot be read"):
        read_log({**WHOSE, "events": events})
    with pytest.raises(ReviewError, match="cannot be read"):
        read_log({"card": CARD, "events": [SENT]})
    with pytest.raises(ReviewError, match="'shout'"):
        read_log({**WHOSE, "events": [{**SENT, "kind": "shout"}]})
    assert read_log({**WHOSE, "events": [SENT]}).events == (event(1, "biased", "a"),)


def test_taking_one_back_leaves_what_others_decided_since(log: DecisionLog) -> None:
    events = [event(1, "biased", "a"), event(2, "biased", "b"), event(3, "biased", "c")]
    send(log, *events)
    log.decide("a", "not_biased", "Bo")
    log.decide_many(["b"], "unsure", "Ana")
    held, first = log.by_auditor(), log.first_inspected()
    send(log, *events, event(4, "undo", "c"))
    assert {id_: d.verdict for id_, d in log.current().items()} == {"a": "not_biased", "b": "unsure"}
    assert log.by_auditor() == {**held, "Ana": {id_: d for id_, d in held["Ana"].items() if id_ != "c"}}
    assert log.first_inspected() == {id_: d for id_, d in first.items() if id_ != "c"}
    log.undo("Ana", log.actions()[-1].action_id)
    assert log.current()["c"].verdict == "biased" and log.by_auditor() == held and log.verify() == []


@pytest.fixture
def log(tmp_path: Path) -> DecisionLog:
    return DecisionLog(database(tmp_path), "audit", known_ids="abcdef")


def send(log: DecisionLog, *events: Event) -> None:
    """What a server does that remembers nothing: it knows what is recorded from the log alone."""
    fresh = new_events(events, acknowledged_number(log.actions(), CARD))
    record_steps(log, fold_events(fresh), "Ana", CARD)


def test_a_log_sent_again_is_recorded_once(log: DecisionLog) -> None:
    first = [event(1, "biased", "a"), event(2, "unsure", "b")]
    send(log, *first)
    send(log, *first)
    send(log, *first, event(3, "not_biased", "c"))
    assert [action.count for action in log.actions()] == [2, 1]
    assert {id_: d.verdict for id_, d in log.current().items()} == {"a": "biased", "b": "unsure", "c": "not_biased"}
    assert all(d.inspected for d in log.current().values())


def test_taking_one_back_keeps_the_others_of_its_action(log: DecisionLog) -> None:
    events = [event(1, "biased", "a"), event(2, "unsure", "b"), event(3, "biased", "c")]
    send(log, *events)
    send(log, *events, event(4, "undo", "c"))
    assert {id_: d.verdict for id_, d in log.current().items()} == {"a": "biased", "b": "unsure"}
    assert [action.kind for action in log.actions()] == ["decide", "withdraw"]
    actions = len(log.actions())
    send(log, *events, event(4, "undo", "c"))  # again: nothing is left to take back
    assert set(log.current()) == {"a", "b"}
    assert len(log.actions()) == actions
    assert log.verify() == []


def test_an_undo_sent_again_leaves_the_card_s_earlier_verdict(log: DecisionLog) -> None:
    events = [event(1, "biased", "a")]
    send(log, *events)
    send(log, *events, event(2, "unsure", "a"))
    for _ in range(2):  # a server that died after it recorded the undo, before it said so
        send(log, *events, event(2, "unsure", "a"), event(3, "undo", "a"))
    assert {id_: d.verdict for id_, d in log.current().items()} == {"a": "biased"}
    assert log.verify() == []


def test_an_undo_leaves_decisions_of_others_alone(log: DecisionLog) -> None:
    log.decide("a", "biased", "Bo")
    send(log, event(1, "undo", "a"))
    assert set(log.current()) == {"a"}
    assert len(log.actions()) == 1


presses = st.lists(st.sampled_from(["b", "n", "s", "z"]), max_size=25)


@given(presses, st.lists(st.integers(1, 25), max_size=4))
def test_any_batching_of_presses_ends_alike(keys: list[str], cuts: list[int]) -> None:
    """The card's events for these presses over 6 examples, sent in batches cut anywhere, leave what pressing means."""
    events, trail, place = [], list[tuple[int, str]](), 0
    expected: dict[str, str] = {}
    for key in keys:
        if key == "z":
            if not trail:
                continue
            place, kind = trail.pop()
            expected.pop("abcdef"[place], None)
            events.append(event(len(events) + 1, "back" if kind == "s" else "undo", "abcdef"[place], place))
        elif place < 6:
            kind = {"b": "biased", "n": "not_biased", "s": "skip"}[key]
            if key != "s":
                expected["abcdef"[place]] = kind
            trail.append((place, key))
            place += 1
            events.append(event(len(events) + 1, kind, "abcdef"[place - 1], place))
    recorded: dict[str, str] = {}
    bounds = sorted({0, len(events), *(cut for cut in cuts if cut < len(events))})
    for start, end in zip(bounds, bounds[1:], strict=False):
        for step in fold_events(new_events(events[:end], acknowledged=start)):
            if isinstance(step, Judge):
                recorded.update({id_: verdict for id_, verdict, _ in step.judged})
            else:
                recorded.pop(step.example)
    assert recorded == expected


def test_queues_mix_or_draw_what_is_not_inspected(log: DecisionLog) -> None:
    log.decide("c", "biased", "Ana")
    log.decide_many(["a", "d"], "biased", "Ana")
    left = queue_ids("dcba", log.current(), "mixed")
    assert left == queue_ids("dcba", log.current(), "random") == ("d", "b", "a")
    assert in_order(left, "mixed", "s") == mixed_order(left, "s")
    assert in_order(left, "assigned", "s") == mixed_order(left, "s")
    assert in_order(left, "random", "s") == (uniform_order(left, "s"), frozenset(left))
    assert in_order(left, "undecided", "s") == (left, frozenset())


def test_the_stop_hint_in_words() -> None:
    hint = StopHint(rule=StopRule(target=0.9), evidence=3.0, draws=1)
    assert stop_words(hint).startswith("Not yet: at least 90 % of the biased examples, with 95 % confidence, takes 1 example more")
    assert stop_words(StopHint(rule=StopRule(target=0.9), evidence=30.0, draws=0)).startswith("**Enough: found are at least 90 %")
    spent = review(200, [*[(place, False, False) for place in range(100)], *[(place, False, True) for place in range(100, 150, 5)]])
    assert f"the queue *{KINDS['random']}*" in next_words(spent)


def test_the_queue_holds_what_is_left_by_rank(log: DecisionLog) -> None:
    log.decide("c", "biased", "Ana")
    log.decide_many(["a", "d"], "biased", "Ana")
    assert queue_ids("dcba", log.current(), "undecided") == ("b",)
    assert queue_ids("dcba", log.current(), "not inspected") == ("d", "b", "a")
