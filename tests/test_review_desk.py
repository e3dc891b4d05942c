"""The desk of Review: similar examples as a queue, goal and pace, an auditor's own keys, shades by token, ranks by checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import nan
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from biasdiff_core.attribution.influence import CheckpointStores, exact_cosines
from biasdiff_core.attribution.store import GradientStore
from biasdiff_core.audit import Audit
from biasdiff_core.errors import ReviewError
from biasdiff_core.pipeline import Pipeline
from biasdiff_core.plan import TOKENS_FILE, tokens_stage
from biasdiff_core.review.design import mixed_order
from biasdiff_core.review.pace import Pace
from biasdiff_core.workspace.artefacts import Artefact, archive, open_artefact
from biasdiff_core.workspace.audits import WORKSPACE_VARIABLE, create_audit
from biasdiff_core.workspace.database import database
from biasdiff_ui.checkpoints import checkpoint_ranks
from biasdiff_ui.examples import load_examples
from biasdiff_ui.pace_line import pace_words
from biasdiff_ui.review_keys import TAKEN, USUAL, checked, keys_of
from biasdiff_ui.review_queue import Queue
from biasdiff_ui.similar import NEAREST
from biasdiff_ui.token_shading import cut_to_fit, load_shading
from tests.app_pages import keyed, open_page, press
from tests.undecided import undecided_audit


@pytest.fixture
def audit(finished_workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Audit:
    """A copy of the finished audit that the app looks at; its simulated decisions undone."""
    monkeypatch.setenv(WORKSPACE_VARIABLE, str(finished_workspace))
    return undecided_audit(finished_workspace)


@pytest.fixture
def order(audit: Audit) -> tuple[str, ...]:
    """The ids as the queue by rank shows them."""
    return mixed_order(audit.ranking()["id"].tolist(), audit.folder.id)[0]


def last_epoch(artefact: Artefact) -> Path:
    return artefact.folder / sorted(path.name for path in artefact.folder.glob("epoch-*"))[-1]


def archive_all(artefact: Artefact, suffix: str) -> None:
    archive(artefact, [name for name in artefact.files if name.endswith(suffix)])


# --- similar ----------------------------------------------------------------------------------------------------------


def similar_slow(audit: Audit, id_: str) -> list[str]:
    """All others, nearest first, one dot product at a time."""
    store = GradientStore.open(last_epoch(audit.artefact("gradients")) / "train")
    vectors = dict(zip(store.ids, store.vectors(), strict=True))
    return sorted(vectors.keys() - {id_}, key=lambda other: (-float(vectors[other] @ vectors[id_]), store.ids.index(other)))


def queue_of(app: object) -> Queue:
    return app.session_state["review-queue"]  # type: ignore[attr-defined,no-any-return]


def test_similar_ones_become_a_queue_and_the_way_back_leads_to_the_same_place(audit: Audit, order: tuple[str, ...]) -> None:
    app = open_page(audit, "review", native=True)
    press(press(app, "native-not_biased"), "native-skip")
    press(app, "native-similar")
    nearest = similar_slow(audit, order[2])
    assert queue_of(app).ids == tuple(id_ for id_ in nearest if id_ != order[0])[:NEAREST]  # the inspected one is left out
    assert set(audit.similar_to(order[2], NEAREST)) == set(nearest)  # 39 of 40
    texts = audit.ranking().set_index("id")["text"]
    assert texts[queue_of(app).ids[0]] in [element.value for element in app.text]
    press(app, "native-biased")
    held = audit.log.current()[queue_of(app).ids[0]]
    assert held.selection == {"queue": f"similar to {order[2]}"}
    first = queue_of(app)
    press(app, "native-similar")  # similar to the second of the similar ones
    assert queue_of(app).like == first.ids[1]
    press(app, "earlier")
    assert (queue_of(app).ids, queue_of(app).place) == (first.ids, 1)
    press(app, "earlier")
    assert (queue_of(app).ids, queue_of(app).current) == (order, order[2])
    assert not [button for button in app.button if button.key == "earlier"]


def test_another_kind_of_queue_or_a_refresh_leaves_the_similar_ones(audit: Audit) -> None:
    app = press(open_page(audit, "review", native=True), "native-similar")
    app.selectbox(key="queue").set_value("undecided").run()
    assert queue_of(app).kind == "undecided"
    press(app, "native-similar")
    next(button for button in app.button if button.label == "Refresh the queue").click().run()
    assert queue_of(app).kind == "undecided"


def test_without_vectors_similar_says_why(audit: Audit) -> None:
    archive_all(audit.artefact("gradients"), ".npy")
    app = open_page(audit, "review", native=True)
    button = app.button(key="native-similar")
    assert button.disabled
    assert "is archived" in button.help


# --- goal and pace ----------------------------------------------------------------------------------------------------


def test_the_goal_and_what_is_done_outlast_a_reload(audit: Audit) -> None:
    app = open_page(audit, "review", native=True)
    keyed(app.number_input, "goal").set_value(2).run()
    press(app, "native-biased")
    assert "**1 of 2 decisions** in this session" in words(app)
    press(app, "native-not_biased")
    assert "goal reached" in words(app)
    again = open_page(audit, "review")
    assert keyed(again.number_input, "goal").value == 2
    assert "**2 of 2 decisions** in this session" in words(again)
    press(again, "undo")
    assert "**1 of 2 decisions** in this session" in words(again)
    other = open_page(audit, "review", auditor="Bo")
    assert keyed(other.number_input, "goal").value is None
    assert "**0 decisions** in this session" in words(other)


def test_another_name_in_the_same_session_has_goal_and_keys_of_its_own(audit: Audit) -> None:
    app = open_page(audit, "review", keys=True)
    keyed(app.number_input, "goal").set_value(50).run()
    keyed(app.text_input, "key-biased").set_value("q").run()
    app.session_state["auditor"] = "Bo"
    app.run()
    assert keyed(app.number_input, "goal").value is None and keyed(app.text_input, "key-biased").value == "b"
    press(app, "keys-keep")
    assert keys_of(database(audit.folder.workspace), "Bo").of == dict(USUAL)


def test_a_button_pressed_twice_judges_only_what_it_stood_under(audit: Audit) -> None:
    """The second press is on the page as it was: nothing of the next example was seen by then."""
    app = open_page(audit, "review", native=True)
    button = keyed(app.button, "native-biased")
    first = queue_of(app).ids[0]
    button.click().run()
    button.click().run()
    assert set(audit.log.current()) == {first}


def words(app: object) -> str:
    return "\n".join(element.value for element in app.markdown)  # type: ignore[attr-defined]


def test_pace_in_words() -> None:
    assert pace_words(Pace(done=1, per_minute=0.0), 0) == "**1 decision** in this session"
    # 38 more at 4.5 a minute: 8.4 minutes
    assert pace_words(Pace(done=12, per_minute=4.5), 50) == "**12 of 50 decisions** in this session · 4.5 a minute · about 8 min left"
    assert pace_words(Pace(done=50, per_minute=4.5), 50) == "**50 of 50 decisions** in this session · 4.5 a minute · goal reached"


# --- keys -------------------------------------------------------------------------------------------------------------


def test_keys_are_kept_for_their_auditor_and_can_be_put_back(audit: Audit) -> None:
    app = open_page(audit, "review", keys=True)
    assert {act: keyed(app.text_input, f"key-{act}").value for act in USUAL} == dict(USUAL)
    keyed(app.text_input, "key-biased").set_value("N").run()
    keyed(app.text_input, "key-not_biased").set_value("b").run()
    keyed(app.toggle, "key-on").set_value(False).run()
    press(app, "keys-keep")
    assert not app.error
    again = open_page(audit, "review", keys=True)
    assert keyed(again.text_input, "key-biased").value == "n"
    assert keyed(again.text_input, "key-not_biased").value == "b"
    assert not keyed(again.toggle, "key-on").value
    assert keyed(open_page(audit, "review", auditor="Bo", keys=True).text_input, "key-biased").value == "b"
    press(again, "keys-usual")
    assert keyed(again.text_input, "key-biased").value == "b"
    assert keyed(again.toggle, "key-on").value


def test_two_acts_on_one_key_are_refused_in_words(audit: Audit) -> None:
    app = open_page(audit, "review", keys=True)
    keyed(app.text_input, "key-unsure").set_value("B").run()
    press(app, "keys-keep")
    assert "“biased” and “unsure” are both on the key B" in app.error[0].value.replace("\\", "")
    assert keyed(open_page(audit, "review", keys=True).text_input, "key-unsure").value == "u"


@pytest.mark.parametrize("key", ["", " ", "ab", "\n", *TAKEN, "R"])
def test_keys_that_cannot_be_pressed_are_refused(key: str) -> None:
    with pytest.raises(ReviewError, match="no key|not free"):
        checked({**USUAL, "skip": key})


def test_usual_keys_are_sound() -> None:
    assert checked(USUAL) == dict(USUAL)


# --- shades by token --------------------------------------------------------------------------------------------------


def test_candidates_are_shaded_once_and_sum_to_their_score(audit: Audit) -> None:
    plan = audit.plan()
    examples = load_examples(audit, plan)
    assert examples is not None
    before = load_shading(audit, examples)
    assert (before.cards, before.can_start) == ({}, True)
    assert "Shade the candidates by token" in before.unshaded
    audit.shade_tokens()
    stage = tokens_stage(audit.folder)
    made = open_artefact(audit.folder.path, stage.stage, stage.key)
    tokens = pd.read_parquet(made.path(TOKENS_FILE))
    ids = audit.ranking()["id"].tolist()[:24]  # 60 % of 40
    assert list(dict.fromkeys(tokens["id"])) == ids
    types = [probe.bias_type for probe in audit.probes()]
    stores = CheckpointStores.open(last_epoch(audit.artefact("gradients")), 1.0)
    exact = exact_cosines([stores], {kind: types.count(kind) for kind in set(types)}).set_axis(list(stores.train.ids))["mean"]
    sums = tokens.groupby("id")["influence"].sum()
    np.testing.assert_allclose(sums[ids], exact[ids], atol=2e-6)
    audit.shade_tokens()
    assert open_artefact(audit.folder.path, stage.stage, stage.key).created == made.created
    found = load_shading(audit, examples)
    assert set(found.cards) == set(ids)
    text = audit.ranking()["text"][0]
    card = found.cards[ids[0]]
    assert sum(length for length, _, _ in card["text"]) == len(text)
    assert card["prompt"] == []
    assert sum(influence for _, _, influence in card["text"]) + card["rest"] == pytest.approx(exact[ids[0]], abs=1e-4)
    assert "24 candidates" in found.unshaded
    assert audit.plan().finished  # no part of the analysis has become stale
    assert all(finding.state == "ok" for finding in audit.folder.verify()[f"tokens/{stage.key}"])


def test_without_weights_shading_says_why(audit: Audit) -> None:
    archive_all(audit.artefact("warmup"), ".safetensors")
    app = open_page(audit, "review")
    assert not [button for button in app.button if button.key == "shade"]
    assert any("cannot be shaded by token" in caption.value and "is archived" in caption.value for caption in app.caption)


def test_tokens_cut_to_fit_by_hand() -> None:
    # "aé b": the é is two tokens of a byte each, the blank no token's.
    tokens = [(0, 1, nan, 0.5), (1, 2, 1.0, 0.25), (1, 2, 2.0, -1.0), (3, 4, 0.5, 0.0)]
    assert cut_to_fit(5, tokens) == [[1, None, 0.5], [1, 3.0, -0.75], [1, None, None], [1, 0.5, 0.0], [1, None, None]]
    assert cut_to_fit(0, []) == []


spans = st.lists(st.tuples(st.integers(0, 20), st.integers(1, 4), st.integers(-8, 8)), max_size=12)


@given(spans)
def test_pieces_fill_the_text_and_keep_the_sums(drawn: list[tuple[int, int, int]]) -> None:
    tokens = [(start, start + length, float(abs(value)), value / 8) for start, length, value in sorted(drawn)]
    pieces = cut_to_fit(24, tokens)
    assert sum(length for length, _, _ in pieces) == 24
    assert sum(influence or 0.0 for _, _, influence in pieces) == sum(token[3] for token in tokens)
    assert sum(loss or 0.0 for _, loss, _ in pieces) == sum(token[2] for token in tokens)


# --- ranks at each checkpoint -----------------------------------------------------------------------------------------


def test_one_checkpoint_has_no_ranks_of_its_own(audit: Audit) -> None:
    assert checkpoint_ranks(audit, audit.plan()) == {}


def ranks_slow(scores: Mapping[str, float]) -> dict[str, int]:
    return {id_: 1 + sum((-scores[o], o) < (-scores[id_], id_) for o in scores) for id_ in scores}


def test_ranks_at_each_checkpoint_are_those_of_its_cosines(audit: Audit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = audit.config
    both = Audit(create_audit(tmp_path / "both", replace(config, name="both", gradients=replace(config.gradients, checkpoints="all"))))
    Pipeline(both.folder).analyse(until="ranking")
    found = checkpoint_ranks(both, both.plan())
    assert list(found) == ["epoch 1", "epoch 2"]
    types = [probe.bias_type for probe in both.probes()]
    for number, ranks in enumerate(found.values(), start=1):
        rows = GradientStore.open(both.artefact("gradients").folder / f"epoch-{number:02d}" / "train")
        weighed = sum(rows.rows[f"cosine:probe:{kind}"] * types.count(kind) / len(types) for kind in sorted(set(types)))
        assert ranks.to_dict() == ranks_slow(dict(zip(rows.ids, weighed, strict=True)))
    assert not found["epoch 1"].sort_index().equals(found["epoch 2"].sort_index())
    monkeypatch.setenv(WORKSPACE_VARIABLE, str(tmp_path / "both"))
    app = open_page(both, "explore", link={"rank": "1"})
    first = both.ranking()["id"].iloc[0]
    assert f"epoch 1: {found['epoch 1'][first]} · epoch 2: {found['epoch 2'][first]}" in [element.value for element in app.text]
