"""Search by a sentence of one's own and by an example, on a finished audit: library, command line and the page Explore."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
from click.testing import CliRunner, Result

from biasdiff_core.audit import Audit
from biasdiff_core.cli import main
from biasdiff_core.errors import ArtefactError, DataError
from biasdiff_core.evidence import last_stores
from biasdiff_core.plan import search_stage
from biasdiff_core.workspace.artefacts import Artefact, archive
from biasdiff_core.workspace.audits import WORKSPACE_VARIABLE
from biasdiff_core.workspace.database import database
from biasdiff_core.workspace.jobs import list_jobs
from tests.app_pages import open_page, press


@pytest.fixture
def audit(finished_audit: Audit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Audit:
    """A copy of the finished audit in a workspace of its own, of the shape that the app and the command line open."""
    shutil.copytree(finished_audit.folder.workspace, tmp_path / "workspace")
    monkeypatch.setenv(WORKSPACE_VARIABLE, str(tmp_path / "workspace"))
    return Audit.open(finished_audit.folder.id)


def archive_all(artefact: Artefact, suffix: str) -> None:
    archive(artefact, [name for name in artefact.files if name.endswith(suffix)])


def biasdiff(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def test_a_probe_given_as_a_sentence_finds_itself_and_its_nearest_examples(audit: Audit) -> None:
    """The same map, sketch and checkpoint: a probe's own text has the gradient that the store holds, and so its neighbours."""
    probe = next(iter(audit.probes()))
    first = audit.search(probe.text, 3, probes=True)
    assert first["id"][0] == probe.id and first["text"][0] == probe.text and first["place"].tolist() == [1, 2, 3]
    assert first["cosine"][0] == pytest.approx(1, abs=2e-3)
    stores = last_stores(audit.artefact("gradients"))
    cosines = stores.train.vectors() @ stores.probes.vectors()[0]
    found = audit.search(probe.text, 10)
    np.testing.assert_allclose(found["cosine"], -np.sort(-cosines)[:10], atol=2e-3)
    texts = {example.id: example.text for example in audit.corpus()}
    assert [texts[id_] for id_ in found["id"]] == found["text"].tolist()


def test_a_sentence_is_taken_once_and_is_no_part_of_the_analysis(audit: Audit) -> None:
    text = "Everyone knows that women spoil every party."
    found = audit.search(text, 5)
    # One that differs in a word is nearer by gradient than any that shares none.
    assert found["text"].str.contains("Everyone knows that").sum() >= 3
    stage = search_stage(audit.folder, text)
    written = (audit.folder.path / "search" / stage.key / "shard-00000.npy").stat().st_mtime_ns
    archive_all(audit.artefact("warmup"), ".safetensors")  # a second search needs no weights
    pd.testing.assert_frame_equal(audit.search(text, 5), found)
    assert (audit.folder.path / "search" / stage.key / "shard-00000.npy").stat().st_mtime_ns == written
    assert search_stage(audit.folder, text + " ").key != stage.key
    assert all(finding.state == "ok" for finding in audit.folder.verify()[f"search/{stage.key}"])
    assert audit.plan().finished


@pytest.mark.parametrize("stage, suffix", [("gradients", ".npy"), ("warmup", ".safetensors")])
def test_what_is_archived_is_said(audit: Audit, stage: str, suffix: str) -> None:
    archive_all(audit.artefact(stage), suffix)
    with pytest.raises(ArtefactError, match="archived"):
        audit.search("Women cannot park.")
    refused = biasdiff("search", audit.folder.id, "Women cannot park.")
    assert refused.exit_code == 2 and "archived" in refused.stderr


@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_sentence_is_refused(audit: Audit, text: str) -> None:
    with pytest.raises(DataError, match="has no token to predict"):
        audit.search(text)


def test_gradients_taken_otherwise_are_refused(audit: Audit) -> None:
    store = last_stores(audit.artefact("gradients")).probes
    path = store.folder / "store.json"
    path.write_text(path.read_text(encoding="utf8").replace('"sketch": "countsketch', '"sketch": "another'), encoding="utf8")
    with pytest.raises(ArtefactError, match="made with sketch = 'another"):
        audit.search("Women cannot park.")


def test_similar_examples_are_those_of_the_vectors(audit: Audit) -> None:
    id_ = audit.ranking()["id"][0]
    store = last_stores(audit.artefact("gradients")).train
    cosines = store.vectors() @ store.vectors()[store.ids.index(id_)]
    cosines[store.ids.index(id_)] = -np.inf
    found = audit.similar_examples(id_, 4)
    assert found["id"].tolist() == [store.ids[row] for row in np.argsort(-cosines)[:4]]
    with pytest.raises(DataError, match="has no example 'nobody'"):
        audit.similar_examples("nobody")


def test_the_probes_nearest_to_an_example_are_those_kept_with_its_scores(audit: Audit) -> None:
    """Another way to the same answer: the stage `scores` keeps the 5 nearest probes of every example."""
    kept = pd.read_parquet(audit.artefact("scores").path("top_probes.parquet"))
    texts = {probe.id: probe.text for probe in audit.probes()}
    for id_ in audit.ranking()["id"][[0, 20]]:
        expected = kept[kept["id"] == id_]
        found = audit.nearest_probes(id_, 5)
        assert found["id"].tolist() == expected["probe"].tolist()
        assert found["text"].tolist() == [texts[probe] for probe in found["id"]]
        np.testing.assert_allclose(found["cosine"], expected["cosine"], atol=1e-6)
    with pytest.raises(DataError, match="has no example 'nobody'"):
        audit.nearest_probes("nobody")


def test_the_command_by_sentence_and_by_example(audit: Audit) -> None:
    name, text = audit.folder.id, "- Pensioners give up before lunch."
    printed = biasdiff("search", name, "--k", "4", "--json", "--", text)
    assert printed.exit_code == 0, printed.output
    rows = json.loads(printed.stdout)
    assert [row["place"] for row in rows] == [1, 2, 3, 4]
    assert rows == json.loads(audit.search(text, 4).to_json(orient="records"))
    probes = json.loads(biasdiff("search", name, "--k", "2", "--json", "--probes", "--", text).stdout)
    assert {row["id"] for row in probes} <= {probe.id for probe in audit.probes()}
    first = rows[0]["id"]
    like = json.loads(biasdiff("search", name, "--like", first, "--k", "3", "--json").stdout)
    assert [row["id"] for row in like] == audit.similar_examples(first, 3)["id"].tolist()
    assert rows[0]["text"] in biasdiff("search", name, "--", text).stdout
    probes = json.loads(biasdiff("search", name, "--like", first, "--k", "2", "--json", "--probes").stdout)
    assert probes == json.loads(audit.nearest_probes(first, 2).to_json(orient="records"))
    for arguments in ((), ("a", "--like", first)):
        refused = biasdiff("search", name, *arguments)
        assert refused.exit_code == 2 and "Give a sentence" in refused.output


# --- the page ---------------------------------------------------------------------------------------------------------


def found_on(app: Any) -> pd.DataFrame | None:
    return next((frame.value for frame in app.dataframe if "cosine" in frame.value and "decision" in frame.value), None)


def test_the_page_lists_what_is_nearest_best_first(audit: Audit) -> None:
    text = "Everyone knows that Belgians cannot be trusted with a spoon."
    expected = audit.search(text, 50)
    app = open_page(audit, "explore", sentence=text)
    shown = found_on(app)
    assert shown is not None
    assert shown["text"].tolist() == expected["text"].tolist() and len(shown) == 40
    np.testing.assert_allclose(shown["cosine"], expected["cosine"])
    ranks = audit.ranking().set_index("id")["rank"]
    assert shown["rank"].tolist() == [ranks[id_] for id_ in expected["id"]]


def test_the_page_starts_a_job_and_shows_its_answer(audit: Audit) -> None:
    text = "--women sing"
    app = open_page(audit, "explore")
    assert not [button for button in app.button if button.key == "search_sentence"]
    app.text_input(key="sentence").set_value(text).run()
    press(app, "search_sentence")
    (job,) = [job for job in list_jobs(database(audit.folder.workspace)) if job.command[0] == "search"]
    assert job.command == ("search", audit.folder.id, "--", text)
    if job.pid is not None and psutil.pid_exists(job.pid):
        psutil.wait_procs([psutil.Process(job.pid)], timeout=300)
    app.run()
    shown = found_on(app)
    assert shown is not None and shown["text"][0] == audit.search(text, 1)["text"][0]


@pytest.mark.parametrize("stage, suffix", [("gradients", ".npy"), ("warmup", ".safetensors")])
def test_the_page_says_what_is_archived(audit: Audit, stage: str, suffix: str) -> None:
    archive_all(audit.artefact(stage), suffix)
    app = open_page(audit, "explore", sentence="Women cannot park.")
    assert not [button for button in app.button if button.key == "search_sentence"]
    assert any("cannot be searched by a sentence" in caption.value and "archived" in caption.value for caption in app.caption)
