"""The report: figures by evaluation, as many digits as they are worth, and nothing of a model's answer as markup."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from biasdiff_core.audit import Audit
from biasdiff_core.comparison import headline
from biasdiff_core.config import RemovalConfig, ReviewConfig, UnlearnConfig
from biasdiff_core.evidence import outside, settings_in_words, stands_on
from biasdiff_core.plan import removals
from biasdiff_core.report import (
    HTML_FILE,
    MARKDOWN_FILE,
    answers_side_by_side,
    commands,
    counts_text,
    difference_text,
    figure_text,
    measured_text,
    plain,
    sections,
    write_report,
)
from biasdiff_core.results import Comparison, MetricResult, PairedTest
from biasdiff_core.review.removal import load_removal
from biasdiff_core.review.stop_rule import choose
from biasdiff_core.review.suggest import StopRule
from biasdiff_core.workspace.audits import create_audit
from tests.tiny_audit import QUESTIONS


def figure(name: str, value: float | None, low: float | None = None, high: float | None = None, unit: str = "", n: int = 9) -> MetricResult:
    return MetricResult(name=name, value=value, low=low, high=high, n=n, convention=f"how {name} is made", unit=unit)


def moved(variant: str, metric: str, difference: float, low: float, high: float) -> PairedTest:
    return PairedTest(metric=metric, variant=variant, reference="origin", difference=difference, low=low, high=high, n=9, p_value=0.5)


def comparison(share: MetricResult) -> Comparison:
    """Figures of four evaluations; `share`: what NPO undid."""
    shared = [
        figure("crows_pairs.sum.stereotype_margin", 0.5),
        figure("crows_pairs.sum.stereotype_score", 60.0, unit="%"),
        figure("crows_pairs.sum.stereotype_score.age", 50.0, unit="%"),
        figure("seat.weat6.effect_size", 0.2),
        figure("seat.gender.mean_abs_effect_size", 0.3),
        figure("lm_eval.arc_easy.acc", 40.0, unit="%"),
    ]
    rows = {variant: {m.name: m for m in shared} for variant in ("base", "origin", "npo")}
    rows["npo"][share.name] = share
    tests = (
        moved("npo", "crows_pairs.sum.stereotype_margin", -0.2, -0.3, -0.1),
        moved("npo", "crows_pairs.sum.stereotype_score.age", 1, -2, 4),
    )
    return Comparison(audit="a", variants=("base", "origin", "npo"), metrics=rows, tests=tests, provenance={})


SHARE = figure("crows_pairs.sum.rise_undone", 66.0, 41.0, 88.0, unit="%")


def test_figures_stand_with_those_they_can_be_compared_with() -> None:
    crows, seat, harness = sections(comparison(SHARE))
    assert [section.title for section in (crows, seat, harness)] == ["CrowS-Pairs (sum)", "SEAT", "lm-evaluation-harness"]
    assert [column.label for column in crows.figures.columns] == ["mean stereotype margin", "stereotype score", "rise undone"]
    assert [column.label for column in crows.details.columns] == ["stereotype score (age)"]
    assert [column.label for column in seat.figures.columns] == ["mean absolute effect size (gender)"]
    assert [column.label for column in seat.details.columns] == ["effect size (weat6)"]
    assert [column.label for column in harness.figures.columns] == ["acc (arc_easy)"]
    assert [test.metric for test in crows.tests] == ["crows_pairs.sum.stereotype_margin"]
    assert [test.metric for test in crows.detail_tests] == ["crows_pairs.sum.stereotype_score.age"]
    assert crows.figures.rows["base"][2] is None and crows.figures.rows["npo"][2] == SHARE


def test_items_are_counted_by_column_only_where_all_variants_have_the_same() -> None:
    given = comparison(SHARE)
    given.metrics["npo"]["crows_pairs.sum.stereotype_score"] = figure("crows_pairs.sum.stereotype_score", 60.0, n=8)
    columns = {column.metric: column.n for column in sections(given)[0].figures.columns}
    assert columns["crows_pairs.sum.stereotype_score"] is None
    assert columns["crows_pairs.sum.stereotype_margin"] == 9


@pytest.mark.parametrize(
    ("metric", "text"),
    [
        (figure("a", 54.417, 51.69, 57.12, "%"), "54.4 % [51.7, 57.1]"),
        (figure("a", 260.63, 258.12, 265.04), "260.6 [258.1, 265.0]"),
        (figure("a", 0.8288, 0.78, 0.8777), "0.829 [0.780, 0.878]"),
        (figure("a", 0.0014, 0.0002, 0.0024), "0.0014 [0.0002, 0.0024]"),
        (figure("a", 40.6), "40.60"),
        (figure("a", None), "not defined"),
    ],
)
def test_a_figure_has_the_digits_of_its_size_and_unit(metric: MetricResult, text: str) -> None:
    assert figure_text(metric) == text


@pytest.mark.parametrize(
    ("difference", "low", "high", "text"),
    [
        (-3.14, -5.25, -1.04, "lower by 3.1 [1.0, 5.2]"),  # half the width is 2.1
        (0.0, -0.01, 0.01, "cannot be told from no change (+0.000 [-0.010, 0.010])"),
        (-12.0, -27.0, -1.0, "lower by 12.0 [1.0, 27.0]"),
        (0.0, 0.0, 0.0, "cannot be told from no change (+0.00 [0.00, 0.00])"),
    ],
)
def test_a_difference_has_the_digits_of_its_interval(difference: float, low: float, high: float, text: str) -> None:
    assert difference_text(moved("npo", "m", difference, low, high)) == text


def test_the_headline_names_variants_and_says_the_reason_once() -> None:
    assert headline(comparison(SHARE)) == ["NPO undid 66 [41, 88] % of the induced rise in stereotype margin (sum scoring)."]
    undefined = MetricResult(name=SHARE.name, value=None, n=9, convention="as (a − b) / (a − c); the rise is not clear of zero")
    assert headline(comparison(undefined)) == [
        "The share of the induced rise that was undone is not defined, since the rise is not clear of zero.",
        "NPO: mean stereotype margin lower by 0.200 [0.100, 0.300] (sum scoring).",
    ]


def test_answers_are_quoted_and_never_markup(finished_audit: Audit) -> None:
    table = answers_side_by_side(finished_audit.folder.path, finished_audit.compare())
    assert table["question"].tolist() == [question["prompt"] for question in QUESTIONS]
    assert list(table)[2:] == list(finished_audit.compare().variants)
    html, markdown, _ = (path.read_text(encoding="utf8") for path in finished_audit.report_files())
    assert "&lt;b&gt;Who&lt;/b&gt;" in html and "<b>" not in html
    assert f"\n    {QUESTIONS[0]['prompt']}\n" in markdown
    for question in QUESTIONS:
        assert not re.search(rf"^(?! {{4}}).*{re.escape(str(question['prompt']))}", markdown, re.MULTILINE)


def test_the_report_sets_predicted_beside_observed(finished_audit: Audit) -> None:
    for document in [path.read_text(encoding="utf8") for path in finished_audit.report_files()[:2]]:
        assert "Predicted against observed" in document
        assert "first-order estimate" in document
        assert "retraining against origin" in document


# --- the documents ----------------------------------------------------------------------------------------------------

SECTIONS = (
    "Result",
    "Data",
    "Probes and their quality",
    "Method and settings",
    "Decisions",
    "Results",
    "Limits",
    "Digests",
    "How to reproduce it",
)


class Page(HTMLParser):
    """Elements, ids, addresses and text of a document."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.ids: set[str] = set()
        self.addresses: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.add(str(value))
            if name in ("href", "src", "srcset", "action", "data", "background", "poster", "style") or name.startswith("on"):
                self.addresses.append(str(value))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def documents(finished_audit: Audit) -> tuple[str, str]:
    """The HTML and the Markdown report."""
    html, markdown, _ = (path.read_text(encoding="utf8") for path in finished_audit.report_files())
    return html, markdown


def test_both_documents_have_every_part_and_every_digest(finished_audit: Audit, documents: tuple[str, str]) -> None:
    results = stands_on(finished_audit.folder, [finished_audit.report()])[:-1]  # all but the report itself
    removal = next(one for one in results if one.stage == "removal").facts
    digests = [*outside(results).values(), *(one.key for one in results), removal["digest"], removal["decision_head"]]
    digests += [keys["weights"] for keys in finished_audit.compare().provenance.values()]
    for document in documents:
        assert [
            part for part in (*SECTIONS, "How to reproduce it") if f">{part}</h2>" not in document and f"## {part}\n" not in document
        ] == []
        assert [digest for digest in digests if digest not in document] == []
        assert "biasdiff run audit.yaml --decisions decisions.jsonl" in document
        assert "bootstrap: 200" in document  # the whole of audit.yaml
        assert "No second review" in document and "Agreement is not measured" in document
        assert "Simulated" in document and "not built from a recipe" in plain(document).replace("\\", "")


def test_the_html_is_one_file_that_refers_to_nothing_outside(documents: tuple[str, str]) -> None:
    page = Page(documents[0])
    assert page.elements.isdisjoint({"script", "link", "img", "iframe", "object", "embed", "base", "form", "svg", "video", "audio"})
    assert all(address.startswith("#") and address[1:] in page.ids for address in page.addresses)
    assert len(page.addresses) == 10
    style = re.search("<style>(.*?)</style>", documents[0], re.DOTALL)
    assert style and "url(" not in style[1] and "@import" not in style[1]
    assert "default-src 'none'" in documents[0]
    assert "http" not in documents[0].replace("http-equiv", "")


def test_a_decision_that_was_taken_back_alone_is_told_as_such(finished_workspace: Path, finished_audit: Audit, tmp_path: Path) -> None:
    audit = Audit.open(finished_audit.folder.id, finished_workspace)
    kept, gone = audit.ranking()["id"].tolist()[38:]
    judged = audit.log.decide_each([(kept, "biased", ""), (gone, "unsure", "")], "Ann")
    audit.log.withdraw("Ann", audit.log.by_auditor()["Ann"][gone])
    removal = audit.freeze()
    write_report(audit.folder, {**audit.report().inputs, "removal": removal.key}, tmp_path)
    html, markdown = ((tmp_path / name).read_text(encoding="utf8").replace("\\", "") for name in (HTML_FILE, MARKDOWN_FILE))
    assert all("decisions taken back one by one: 1" in document for document in (html, markdown))
    rows = [line for line in html.partition("Every decision, as frozen")[2].splitlines() if f'<td class="n">{judged.number}</td>' in line]
    assert [("taken back" in row, gone in row) for row in rows] == [(False, False), (True, True)]
    assert f"takes back {gone} of {judged.number}" in html


HOSTILE = "</li><script>alert(1)</script><img src=x onerror=alert(1)> ![x](https://example.org/a.png) | `c` [l](https://example.org) $a$"


def test_names_of_people_and_data_are_never_markup(finished_workspace: Path, finished_audit: Audit, tmp_path: Path) -> None:
    audit = Audit.open(finished_audit.folder.id, finished_workspace)
    inputs = audit.report().inputs
    corpus = next(audit.folder.path.glob("corpus/*/report.json"))
    record = json.loads(corpus.read_text(encoding="utf8"))
    corpus.write_text(json.dumps(record | {"source": HOSTILE, "sources": {HOSTILE: 40}, "groups": {HOSTILE: 40}}), encoding="utf8")
    log = next(audit.folder.path.glob("removal/*/decisions.jsonl"))
    links = [json.loads(line) for line in log.read_text(encoding="utf8").splitlines()]
    judged = sum(len(link["decisions"]) for link in links)
    for link in links:
        for row in link["decisions"]:
            row["auditor"] = HOSTILE
    log.write_text("".join(json.dumps(link) + "\n" for link in links), encoding="utf8")
    write_report(audit.folder, inputs, tmp_path)
    page = Page((tmp_path / HTML_FILE).read_text(encoding="utf8"))
    assert page.elements.isdisjoint({"script", "img"}) and page.text.count("<script>alert(1)</script>") == 4 + judged
    lines = (tmp_path / MARKDOWN_FILE).read_text(encoding="utf8").splitlines()
    markdown = "\n".join(line for line in lines if not line.startswith("    "))  # less what is quoted as code
    assert "alert" in markdown
    assert not re.search(r"(?<!\\)(<script|<img|!\[x\]|\[l\]\(|\$a)", markdown)
    table = next(line for line in markdown.splitlines() if line.startswith("| \\<"))
    assert len(re.findall(r"(?<!\\)\|", table)) == 10  # nine cells: the name makes no further one


def test_the_html_holds_every_frozen_decision_and_action(finished_workspace: Path, finished_audit: Audit, tmp_path: Path) -> None:
    audit = Audit.open(finished_audit.folder.id, finished_workspace)
    ids = audit.ranking()["id"].tolist()
    choose(audit.log, StopRule(target=0.9), "Ann")
    audit.log.decide(ids[39], "biased", "Ann", "<i>sure</i>", {"page": "explore", "filter": {"text": "<u>"}})
    audit.log.undo("Bea", audit.log.decide(ids[38], "unsure", "Ann").action_id)
    removal = audit.freeze(auditor="Cleo")
    write_report(audit.folder, {**audit.report().inputs, "removal": removal.key}, tmp_path)
    html, markdown = ((tmp_path / name).read_text(encoding="utf8") for name in (HTML_FILE, MARKDOWN_FILE))
    links = [json.loads(line) for line in removal.path("decisions.jsonl").read_text(encoding="utf8").splitlines()]
    table = html.partition("Every decision, as frozen")[2].partition("</table>")[0]
    # One row a decision, one for the rule and one for the undo, and the head.
    assert table.count("<tr>") == sum(len(link["decisions"]) for link in links) + 2 + 1
    assert all(link["hash"] in table for link in links)
    assert all(row["example_id"] in table for link in links for row in link["decisions"])
    assert "&lt;i&gt;sure&lt;/i&gt;" in table and "text: &lt;u&gt;" in table and "<i>" not in html
    undone = next(line for line in table.splitlines() if "<td>unsure</td>" in line)
    assert f"{ids[38]}" in undone and "taken back" in undone and f"takes back {links[-2]['number']}" in table
    for document in (html, markdown.replace("\\", "")):
        assert "Frozen by: Cleo" in document
        assert "at least 90 % of the biased examples, with 95 % confidence (chosen by Ann in action 2)" in document
        assert "Changed after the review had begun (action 2 of Ann)" in document  # the simulated auditor had judged before


def test_what_is_missing_is_said_to_be_missing(finished_workspace: Path, finished_audit: Audit, tmp_path: Path) -> None:
    audit = Audit.open(finished_audit.folder.id, finished_workspace)
    inputs = audit.report().inputs
    next(audit.folder.path.glob("ranking/*/detection.json")).unlink()
    for manifest in audit.folder.path.glob("ranking/*/manifest.json"):
        record = json.loads(manifest.read_text(encoding="utf8"))
        del record["files"]["detection.json"]
        manifest.write_text(json.dumps(record), encoding="utf8")
    for vectors in audit.folder.path.glob("gradients/*/*/probes/shard-*.npy"):
        vectors.unlink()
    (finished_workspace / "lexicon.csv").write_text("nothing\n", encoding="utf8")
    write_report(audit.folder, inputs, tmp_path)
    for name in (HTML_FILE, MARKDOWN_FILE):
        document = (tmp_path / name).read_text(encoding="utf8").replace("\\", "")
        assert "Not measured: no labels are known." in document
        assert "lexicon.csv has the columns" in document
        assert re.search(r"coherence within bias types[ |]*not measured", re.sub("<[^>]*>", " ", document))


def test_the_commands_make_this_removal_set_again(finished_audit: Audit) -> None:
    config, folder = finished_audit.config, finished_audit.folder
    replay, verify = "biasdiff run audit.yaml --decisions decisions.jsonl", f"biasdiff verify {folder.id}"
    assert commands(folder, config.removal, config.mitigation.methods) == [replay, verify]
    chosen = f"biasdiff mitigate {folder.id} --policy filter --ids ids.json --method retrain"
    assert commands(folder, RemovalConfig(policy="filter"), ["retrain"]) == [replay, chosen, verify]
    top = RemovalConfig(policy="top_percent", percent=35)
    mitigate = f"biasdiff mitigate {folder.id} --policy top_percent --percent 35 --method retrain"
    assert commands(folder, top, ["retrain"]) == [replay, mitigate, verify]


def test_where_people_decided_the_commands_take_their_decisions_over_before_another_set(finished_audit: Audit, tmp_path: Path) -> None:
    """`run --decisions` would stop at the config's own set, which may be empty."""
    folder = create_audit(tmp_path, replace(finished_audit.config, review=ReviewConfig(simulate_from_labels=False)))
    assert (
        commands(folder, folder.config.removal, folder.config.mitigation.methods)[0]
        == "biasdiff run audit.yaml --decisions decisions.jsonl"
    )
    run, replay, mitigate, _ = commands(folder, RemovalConfig(policy="top_percent", percent=35), ["retrain"])
    assert (run, replay) == ("biasdiff run audit.yaml", f"biasdiff decide replay {folder.id} decisions.jsonl")
    assert "--policy top_percent --percent 35" in mitigate


def test_a_convention_that_variants_do_not_share_names_them() -> None:
    made = comparison(SHARE)
    made.metrics["npo"]["crows_pairs.sum.stereotype_margin"] = replace(SHARE, name="crows_pairs.sum.stereotype_margin", convention="told")
    (section,) = (s for s in sections(made) if s.title == "CrowS-Pairs (sum)")
    found = {convention: [column.label for column in columns] for convention, columns in section.conventions().items()}
    assert found["base, origin: how crows_pairs.sum.stereotype_margin is made"] == found["NPO: told"] == ["mean stereotype margin"]
    assert found["how crows_pairs.sum.stereotype_score is made"] == ["stereotype score"]


def test_weights_found_at_every_step_are_not_told_as_settings(finished_audit: Audit) -> None:
    config, removal = finished_audit.config, load_removal(removals(finished_audit.folder)[0])
    pareto = replace(config, mitigation=replace(config.mitigation, npo=UnlearnConfig(combine="pareto")))
    fixed, anew = (settings_in_words(c, ["npo"], removal)["Method: NPO"] for c in (config, pareto))
    assert "retain 1" in fixed and "retain 1" not in anew and "anew at every step" in anew


def test_words_for_figures_and_counts() -> None:
    assert measured_text(figure("a", None)) == "not measured"
    assert measured_text(figure("a", 9.0)) == "9"
    assert (measured_text(figure("a", 1508.0)), measured_text(figure("a", 1.23456))) == ("1,508", "1.23")
    assert measured_text(figure("a", 54.417, 51.69, 57.12, "%")) == "54.4 % [51.7, 57.1]"
    assert counts_text({str(n): 1000 for n in range(14)}).endswith("1,000 × 11 and 2 more")
    assert counts_text({}) == ""
