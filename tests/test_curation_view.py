"""Curation on the page Probes: accept, edit, reject, skip and undo by its buttons, progress, and the result of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from biasdiff_core.audit import Audit
from biasdiff_core.config.data import ProbeConfig
from biasdiff_core.corpus.probes import read_probes
from biasdiff_core.review.curation import Curation, read_pairs
from biasdiff_core.workspace.database import database
from biasdiff_ui.corpus_build import store
from biasdiff_ui.curation_view import marked
from biasdiff_ui.data_source import PATH
from tests.app_pages import keyed, press
from tests.app_pages import open_page as open_on
from tests.test_app import open_page, shown
from tests.test_curation import ROWS, written
from tests.tiny_audit import tiny_config

pytestmark = pytest.mark.usefixtures("workspace")


@pytest.fixture
def source(tmp_path: Path) -> ProbeConfig:
    return written(tmp_path / "pairs.csv", [*ROWS])


@pytest.fixture
def curation(workspace: Path, source: ProbeConfig) -> Curation:
    """What the app records, read by another process."""
    return Curation(database(workspace), read_pairs(source))


@pytest.fixture
def app(source: ProbeConfig, curation: Curation) -> AppTest:
    """The page on this source, in a workspace without audits, before an auditor called Ana."""
    opened = open_page("probes", auditor="Ana", curate_how=PATH, curate_path=source.path)
    assert not opened.exception and not opened.error
    return opened.switch_page("pages/probes.py").run()


def states(curation: Curation) -> list[str]:
    return [curated.state for curated in curation.pairs().values()]


def seen(app: AppTest) -> str:
    """The pair that is shown, without marks."""
    return shown(app).replace(":orange-background[**", "").replace("**]", "")


def test_accept_reject_skip_and_undo(app: AppTest, curation: Curation) -> None:
    assert "0 of 5 pairs accepted, 0 of them edited; 0 rejected, 5 undecided. Accepted least: age, 0 of 2." in shown(app)
    assert curation.source.digest in shown(app)
    assert ROWS[2][0] in seen(app) and ROWS[2][1] in seen(app)  # the first of the first type by name
    press(app, "curate_a")
    assert ROWS[0][0] in seen(app)  # the first of a type with less
    press(app, "curate_x")
    assert states(curation) == ["rejected", "undecided", "accepted", "undecided", "undecided"]
    assert "1 of 5 pairs accepted, 0 of them edited; 1 rejected, 3 undecided. Accepted least: gender, 0 of 2." in shown(app)
    press(app, "curate_s")
    assert ROWS[4][0] in seen(app) and states(curation).count("undecided") == 3
    press(app, "curate_z")
    assert states(curation)[0] == "undecided" and ROWS[0][0] in seen(app)  # what was taken back is shown
    press(app, "curate_z")
    assert states(curation) == ["undecided"] * 5 and ROWS[2][0] in seen(app)
    assert keyed(app.button, "curate_z").disabled
    assert [(action.auditor, action.kind) for action in curation.log.actions()] == [("Ana", "decide")] * 2 + [("Ana", "undo")] * 2
    assert curation.log.verify() == []


def test_an_edit_is_refused_with_its_reason_or_recorded(app: AppTest, curation: Curation) -> None:
    press(app, "curate_e")
    text, twin = app.text_area
    assert (text.value, twin.value) == ROWS[2][:2]
    text.set_value("Nobody lets widows near that old copying machine.")
    press(app, "curate_save")
    assert "The edit was refused: not one differing span" in app.error[0].value.replace("\\", "")
    assert app.text_area[0].value == "Nobody lets widows near that old copying machine."  # to be mended, not typed again
    assert curation.log.actions() == []
    app.text_area[1].set_value("Nobody lets students near that old copying machine.")
    press(app, "curate_save")
    assert not app.error and not app.text_area
    assert states(curation) == ["undecided", "undecided", "edited", "undecided", "undecided"]
    app.selectbox(key="curate_state").set_value("edited").run()
    assert "Edited by Ana" in shown(app) and ROWS[2][0] in app.text[0].value  # what it was stands below
    press(app, "curate_e")
    press(app, "curate_cancel")
    assert not app.text_area and len(curation.log.actions()) == 1


def test_a_choice_of_pairs_and_the_end_of_it(app: AppTest, curation: Curation) -> None:
    app.selectbox(key="curate_kind").set_value("nationality").run()
    assert ROWS[4][0] in seen(app) and "1 pair undecided" in shown(app)
    press(app, "curate_s")
    assert "passed over" in shown(app)
    press(app, "curate_again")
    press(app, "curate_a")
    assert "No undecided pair is left in this choice." in shown(app)
    app.selectbox(key="curate_state").set_value("accepted").run()
    assert "accepted by Ana" in shown(app) and keyed(app.button, "curate_a").disabled
    press(app, "curate_x")
    assert states(curation)[4] == "rejected"


def test_a_press_on_a_pair_that_somebody_has_edited_since_is_refused(app: AppTest, curation: Curation) -> None:
    pair = curation.pairs()[list(curation.pairs())[2]].pair
    curation.edit(pair, "Nobody lets widows near the new copying machine.", ROWS[2][1], "age", "Ben")
    press(app, "curate_a")
    assert "was edited" in app.error[0].value and len(curation.log.actions()) == 1


def test_the_result_is_offered_with_its_card_and_used_in_a_new_audit(app: AppTest, curation: Curation, workspace: Path) -> None:
    app.session_state["curate_result"] = True
    assert "No pair of" in app.run().error[0].value
    press(app, "curate_a")
    press(app, "curate_a")
    result = curation.result()
    assert result.card.digest in shown(app) and f"SHA-256 {result.card.source_digest}" in shown(app)
    assert [button.label for button in app.get("download_button")] == ["Curated set (CSV)", "Its card (JSON)"]
    press(app, "curate_use")
    stored = workspace / "corpora" / f"curated-{result.card.digest[:12]}.csv"
    assert stored.read_bytes() == result.content and stored.with_suffix(".card.json").exists()
    assert len(read_probes(ProbeConfig(path=str(stored), twin_column="twin", bias_type_column="bias_type"))[0]) == 2
    assert app.text_input("new_probes_path").value == str(stored)
    assert store(result, "curated") == stored  # once more: the same file
    restated = replace(result, card=replace(result.card, source_digest="0" * 64))
    other, card = store(restated, "curated"), stored.with_suffix(".card.json").read_text(encoding="utf8")
    assert other != stored and other.read_bytes() == result.content and result.card.source_digest in card


def test_the_probes_of_an_audit_can_be_curated_before_it_has_run(workspace: Path, tmp_path: Path, tiny_model_folder: Path) -> None:
    audit = Audit.from_config(tiny_config(tmp_path, tiny_model_folder), workspace)
    app = open_on(audit, "probes", part="Curation")
    assert "0 of 12 pairs accepted" in shown(app)
    press(app, "curate_a")
    assert Curation(database(workspace), read_pairs(audit.config.probes)).result().card.pairs == 1
    assert "once the analysis has read them" in shown(open_on(audit, "probes"))


def test_nothing_is_decided_without_a_name(source: ProbeConfig) -> None:
    app = open_page("probes", curate_how=PATH, curate_path=source.path)
    assert "Give your name" in shown(app) and not [b for b in app.button if str(b.key).startswith("curate_a")]


def test_texts_are_inert_and_differing_words_marked() -> None:
    text = "Those <b>women</b> of ![x](http://x.test) pay, $1 and :red[all]."
    found = marked(text, text.replace("women", "men"))
    assert found.count(":orange-background[**women") == 1 and found.count("**]") == 1
    assert "<b>" not in found.replace("\\<", "") and "![" not in found.replace("\\!", "") and ":red[" not in found.replace("\\:", "")
    assert marked("All the same.", "All the same.") == "All the same\\."
