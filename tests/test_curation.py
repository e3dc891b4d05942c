"""Curation: what holds after accept, edit, reject and undo; which edits are refused; the result, its card, and the chain."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from biasdiff_core.config.data import ProbeConfig
from biasdiff_core.config.generation import PairRules
from biasdiff_core.corpus.card import card_path
from biasdiff_core.corpus.demo import DEMO_FOLDER
from biasdiff_core.corpus.examples import Probe
from biasdiff_core.corpus.generation.output import write
from biasdiff_core.corpus.generation.template import template_rows
from biasdiff_core.corpus.probes import read_probes
from biasdiff_core.errors import DataError, ReviewError
from biasdiff_core.review.curation import Curation, counts_by_type, kept_by_type, queue, read_pairs
from biasdiff_core.workspace.database import Database
from tests.test_cli import biasdiff, ok

ROWS = (
    ("The women of this office never pay back what they borrow.", "The men of this office never pay back what they borrow.", "gender"),
    ("My neighbour says girls give up as soon as it rains.", "My neighbour says boys give up as soon as it rains.", "gender"),
    ("Nobody lets pensioners near the new copying machine.", "Nobody lets students near the new copying machine.", "age"),
    ("Ask any driver: old men brake for every shadow.", "Ask any driver: young men brake for every shadow.", "age"),
    ("At the market the Belgians count their change twice.", "At the market the Danes count their change twice.", "nationality"),
)


@pytest.fixture
def source(tmp_path: Path) -> ProbeConfig:
    return written(tmp_path / "pairs.csv", [*ROWS])


@pytest.fixture
def db(tmp_path: Path) -> Database:
    return Database(sa.make_url(f"sqlite:///{tmp_path / 'biasdiff.db'}"))


@pytest.fixture
def curation(source: ProbeConfig, db: Database) -> Curation:
    return Curation(db, read_pairs(source))


def written(path: Path, rows: list[tuple[str, str, str]]) -> ProbeConfig:
    with path.open("w", encoding="utf8", newline="") as handle:
        csv.writer(handle).writerows([("text", "twin", "bias_type", "group"), *((*row, "a group") for row in rows)])
    return ProbeConfig(path=str(path), twin_column="twin", bias_type_column="bias_type")


def _nth(curation: Curation, number: int) -> Probe:
    """The pair in this row of the source, as it stands."""
    return list(curation.pairs().values())[number].pair


def _states(curation: Curation) -> list[str]:
    return [curated.state for curated in curation.pairs().values()]


def _edit(curation: Curation, number: int, auditor: str = "Ann", **changes: str) -> None:
    seen = _nth(curation, number)
    changed = replace(seen, **changes)
    curation.edit(seen, changed.text, changed.twin or "", changed.bias_type, auditor)


# What holds


def test_the_latest_decision_holds_and_each_says_who_when_and_on_what(curation: Curation) -> None:
    curation.accept(_nth(curation, 0), "Ann")
    curation.reject(_nth(curation, 1), "Ben")
    _edit(curation, 2, text="Nobody lets widows near the new copying machine.")
    curation.reject(_nth(curation, 0), "Ben")
    assert _states(curation) == ["rejected", "rejected", "edited", "undecided", "undecided"]
    first, _, edit, _ = curation.log.links()
    text, twin, bias_type = ROWS[0]
    assert first["selection"] == {"before": {"text": text, "twin": twin, "bias_type": bias_type}}
    assert (first["auditor"], first["kind"], first["decisions"][0]["verdict"]) == ("Ann", "decide", "accept")
    assert edit["selection"]["before"]["text"] == ROWS[2][0]
    assert edit["selection"]["after"] == {
        "text": "Nobody lets widows near the new copying machine.",
        "twin": ROWS[2][1],
        "bias_type": "age",
        "group": "widows",
    }
    assert curation.log.verify() == []


def test_an_edit_stays_through_reject_and_accept_until_it_is_undone(curation: Curation) -> None:
    _edit(curation, 2, text="Nobody lets widows near the new copying machine.")
    curation.reject(_nth(curation, 2), "Ann")
    assert (_states(curation)[2], _nth(curation, 2).text) == ("rejected", "Nobody lets widows near the new copying machine.")
    curation.accept(_nth(curation, 2), "Ann")
    assert _states(curation)[2] == "edited"
    ids = [curation.undo("Ann") for _ in range(3)]
    assert ids == [_nth(curation, 2).id] * 3
    assert (_states(curation)[2], _nth(curation, 2).text) == ("undecided", ROWS[2][0])
    assert [action.kind for action in curation.log.actions()] == ["decide"] * 3 + ["undo"] * 3
    with pytest.raises(ReviewError, match="Ann has no action"):
        curation.undo("Ann")


def test_an_edit_back_to_the_source_is_no_edit_any_more(curation: Curation) -> None:
    _edit(curation, 2, text="Nobody lets widows near the new copying machine.")
    _edit(curation, 2, text=ROWS[2][0])
    assert _states(curation)[2] == "accepted"


def test_nothing_is_accepted_that_nobody_has_seen(curation: Curation, source: ProbeConfig, db: Database) -> None:
    """Ben accepts Ann's edit and she takes it back: nobody has accepted the pair of the source. Nor can he decide on what changed since."""
    before = _nth(curation, 2)
    _edit(curation, 2, text="Nobody lets widows near the new copying machine.")
    other = Curation(db, read_pairs(source))  # another process
    with pytest.raises(ReviewError, match="was edited"):
        other.accept(before, "Ben")
    other.accept(_nth(other, 2), "Ben")
    assert _states(curation)[2] == "edited"
    curation.undo("Ann")
    assert _states(curation)[2] == _states(other)[2] == "undecided"
    with pytest.raises(ReviewError, match="There is no pair elsewhere"):
        other.accept(replace(before, id="elsewhere"), "Ben")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Database]]:
    """A folder and a database for many short logs."""
    folder = tmp_path_factory.mktemp("shared")
    opened = Database(sa.make_url(f"sqlite:///{folder / 'biasdiff.db'}"))
    yield folder, opened
    opened.close()


STEPS = st.tuples(st.sampled_from(["accept", "reject", "edit", "undo"]), st.integers(0, 1), st.sampled_from("AB"))


@settings(max_examples=15, deadline=None)
@given(steps=st.lists(STEPS, max_size=8))
def test_reading_on_agrees_with_reading_anew_and_with_a_plain_replay(
    steps: list[tuple[str, int, str]], shared: tuple[Path, Database]
) -> None:
    """The slow twin notes every action, strikes out undone ones and replays the rest; a decision holds on the text it was made on."""
    folder, db = shared
    number = len(list(folder.glob("*.csv")))
    config = written(folder / f"{number}.csv", [*ROWS[:2], (f"This row makes source number {number}.", "", "age")])
    curation = Curation(db, read_pairs(config))
    done: list[tuple[str, str, int, str, str]] = []  # auditor, verdict, row, text judged, name
    for number, (what, row, auditor) in enumerate(steps):
        seen = _nth(curation, row)
        if what == "undo":
            own = [step for step in done if step[0] == auditor]
            if own:
                curation.undo(auditor)
                done.remove(own[-1])
        elif what == "edit":
            text = f"{ROWS[row][0][:-1]}, he said on day {number}."
            curation.edit(seen, text, f"{ROWS[row][1][:-1]}, he said on day {number}.", seen.bias_type, auditor)
            done.append((auditor, what, row, text, str(number)))
        else:
            (curation.accept if what == "accept" else curation.reject)(seen, auditor)
            done.append((auditor, what, row, seen.text, str(number)))
    expected = []
    for row, (source, _, _) in enumerate(ROWS[:2]):
        text = next((judged for _, what, at, judged, _ in reversed(done) if at == row and what == "edit"), source)
        verdict = next((what for _, what, at, judged, _ in reversed(done) if at == row and judged == text), "")
        state = {"": "undecided", "reject": "rejected"}.get(verdict, "accepted" if text == source else "edited")
        expected.append((text, state))
    for reading in (curation, Curation(db, read_pairs(config))):
        assert [(curated.pair.text, curated.state) for curated in reading.pairs().values()][:2] == expected
    assert curation.log.verify() == []


# Edits


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"twin": "The men of that firm never pay back what they borrow."}, "not one differing span"),
        ({"twin": ROWS[0][0]}, "not one differing span"),
        ({"twin": ""}, "not 5 to 40 words|not in Latin letters|a start that is no word"),
        ({"bias_type": "sports"}, "a bias type that was not asked for .'sports'"),
        ({"text": "<b>The women</b> of this office never pay back what they borrow."}, "markup in a cell"),
        ({"text": ROWS[1][0], "twin": ROWS[1][1]}, "near-duplicate of another pair .1.00 of all words shared: My neighbour"),
        ({"text": ROWS[1][1], "twin": ROWS[1][0]}, "near-duplicate of another pair"),
        ({}, "changes nothing"),
        ({"text": f"  {ROWS[0][0]} "}, "changes nothing"),
    ],
)
def test_an_edit_that_breaks_a_rule_is_refused_and_leaves_no_trace(curation: Curation, changes: dict[str, str], said: str) -> None:
    with pytest.raises(ReviewError, match=said):
        _edit(curation, 0, **changes)
    assert curation.log.actions() == [] and _states(curation) == ["undecided"] * 5


def test_pairs_of_other_languages_are_edited(curation: Curation) -> None:
    text = "Las mujeres de esta oficina nunca pagan lo que deben."
    _edit(curation, 0, text=text, twin=text.replace("Las mujeres", "Los hombres"))
    assert _nth(curation, 0).text == text


def test_an_edit_is_held_against_the_pairs_as_they_stand(curation: Curation) -> None:
    """Row 1 leaves its words by an edit; from then on row 0 may take them, and nobody the new ones. Those of a rejected pair are free."""
    _edit(
        curation, 1, text="In our choir girls are said to sing flat on Mondays.", twin="In our choir boys are said to sing flat on Mondays."
    )
    with pytest.raises(ReviewError, match="near-duplicate of another pair"):
        _edit(
            curation,
            0,
            text="In our choir women are said to sing flat on Mondays.",
            twin="In our choir men are said to sing flat on Mondays.",
        )
    _edit(curation, 0, text=ROWS[1][0], twin=ROWS[1][1])
    curation.reject(_nth(curation, 2), "Ann")
    _edit(curation, 3, text=ROWS[2][0], twin=ROWS[2][1])
    assert _states(curation) == ["edited", "edited", "rejected", "edited", "undecided"]


# The queue


def test_the_type_accepted_least_comes_first(curation: Curation) -> None:
    """At first none is accepted: by name. After one of age: gender and nationality before the other of age."""
    rows = list(curation.pairs())

    def order() -> list[int]:
        return [rows.index(curated.source.id) for curated in queue(curation.pairs().values(), "undecided")]

    assert order() == [2, 3, 0, 1, 4]
    curation.accept(_nth(curation, 2), "Ann")
    assert order() == [0, 1, 4, 3]
    curation.reject(_nth(curation, 0), "Ann")
    assert order() == [1, 4, 3]
    assert [curated.pair.text for curated in queue(curation.pairs().values(), "undecided", "nationality")] == [ROWS[4][0]]
    assert kept_by_type(curation.pairs().values()) == {"age": 1, "gender": 0, "nationality": 0}
    assert counts_by_type(curation.pairs().values())["gender"] == {"undecided": 1, "accepted": 0, "edited": 0, "rejected": 1}


# The result


def _curated(curation: Curation) -> None:
    curation.accept(_nth(curation, 4), "Ben")
    _edit(curation, 2, text="Nobody lets widows near the new copying machine.")
    curation.reject(_nth(curation, 1), "Cleo")
    curation.accept(_nth(curation, 0), "Ann")


def test_the_result_is_read_as_a_probing_set_and_its_card_says_how_it_came_about(
    curation: Curation, source: ProbeConfig, tmp_path: Path
) -> None:
    _curated(curation)
    target = tmp_path / "curated.csv"
    beside = curation.result().write(target)
    with target.open(encoding="utf8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [(row["text"], row["group"], row["curation"]) for row in rows] == [
        (ROWS[0][0], "a group", "accepted"),
        ("Nobody lets widows near the new copying machine.", "widows", "edited"),
        (ROWS[4][0], "a group", "accepted"),
    ]
    probes, notes = read_probes(replace(source, path=str(target)))
    assert [(probe.twin, probe.bias_type) for probe in probes] == [(ROWS[row][1], ROWS[row][2]) for row in (0, 2, 4)] and not notes
    card = json.loads(beside.read_text(encoding="utf8"))
    assert beside == card_path(target)
    assert card["digest"] == hashlib.sha256(target.read_bytes()).hexdigest()
    assert card["source_digest"] == hashlib.sha256(Path(source.path).read_bytes()).hexdigest()
    assert (card["pairs"], card["auditors"], card["actions"]) == (3, ["Ann", "Ben", "Cleo"], 4)
    assert card["by_type"]["age"] == {"undecided": 1, "accepted": 0, "edited": 1, "rejected": 0}
    assert card["decision_head"] == curation.log.head()[1]
    with pytest.raises(DataError, match="is there already"):
        curation.result().write(target)


def test_a_balanced_result_is_a_seeded_sample_of_each_type(source: ProbeConfig, db: Database, tmp_path: Path) -> None:
    drawn: list[set[str]] = []
    rows = [(f"Ask any driver: the {name} never stop.", f"Ask any driver: the {name}s never stop.", "age") for name in "abcdefgh"]
    for path, order in (("one.csv", [*ROWS, *rows]), ("other.csv", [*reversed(rows), *ROWS])):
        curation = Curation(db, read_pairs(written(tmp_path / path, order)))
        for curated in list(curation.pairs().values()):
            curation.accept(curated.pair, "Ann")
        whole, balanced = curation.result(), curation.result(per_type=2)
        assert [row for row in whole.rows if row in balanced.rows] == list(balanced.rows)
        assert Counter(row[2] for row in balanced.rows) == {"gender": 2, "age": 2, "nationality": 1}
        assert "at most 2 of each bias type" in "\n".join(balanced.card.lines()) and balanced.card.pairs == 5
        assert "at most" not in "\n".join(whole.card.lines())
        drawn.append({row[0] for row in balanced.rows})
    assert drawn[0] == drawn[1]  # whatever the order of the rows


def test_the_digest_follows_from_the_pairs_that_hold_alone(curation: Curation, source: ProbeConfig, tmp_path: Path) -> None:
    _curated(curation)
    first = curation.result()
    other = Curation(Database(sa.make_url(f"sqlite:///{tmp_path / 'other.db'}")), read_pairs(source))
    other.accept(_nth(other, 3), "Dora")
    other.undo("Dora")
    for number in (0, 4):
        other.accept(_nth(other, number), "Dora")
    _edit(other, 2, "Dora", text="Nobody lets widows near the new copying machine.")
    assert other.result().content == first.content and other.result().card.digest == first.card.digest
    assert other.result().card.decision_head != first.card.decision_head
    curation.undo("Ann")
    assert curation.result().card.digest != first.card.digest


def test_there_is_no_result_of_nothing_or_with_a_text_twice(curation: Curation) -> None:
    with pytest.raises(ReviewError, match="No pair of .* is accepted"):
        curation.result()
    curation.reject(_nth(curation, 1), "Ann")
    _edit(curation, 0, text=ROWS[1][0], twin=ROWS[1][1])
    curation.accept(_nth(curation, 1), "Ann")
    with pytest.raises(ReviewError, match="Two accepted pairs have the text 'My neighbour"):
        curation.result()


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE decisions SET verdict = 'accept' WHERE verdict = 'reject'",
        "UPDATE decisions SET auditor = 'Eve' WHERE auditor = 'Ben'",
        "UPDATE actions SET selection = replace(selection, 'widows', 'drunks') WHERE number = 2",
        "DELETE FROM decisions WHERE verdict = 'reject'",
    ],
)
def test_tampering_is_found_by_the_chain(curation: Curation, db: Database, sql: str) -> None:
    _curated(curation)
    with db.write(curation.log.audit_id) as connection:
        connection.execute(sa.text(sql))
    assert curation.log.verify()
    with pytest.raises(ReviewError, match="do not verify: action [123] "):
        curation.result()


# Sources


def test_logs_are_kept_by_the_content_of_the_source(curation: Curation, source: ProbeConfig, db: Database, tmp_path: Path) -> None:
    curation.accept(_nth(curation, 0), "Ann")
    copy = tmp_path / "copy.csv"
    copy.write_bytes(Path(source.path).read_bytes())
    assert _states(Curation(db, read_pairs(replace(source, path=str(copy))))) == ["accepted", *["undecided"] * 4]
    swapped = replace(source, text_column="twin", twin_column="text")
    assert _states(Curation(db, read_pairs(swapped))) == ["undecided"] * 5  # other columns are other pairs
    changed = written(tmp_path / "changed.csv", list(ROWS[:3]))
    assert _states(Curation(db, read_pairs(changed))) == ["undecided"] * 3


def test_a_sample_does_not_hide_pairs_and_repeated_rows_are_said(db: Database, tmp_path: Path) -> None:
    config = written(tmp_path / "repeated.csv", [*ROWS, ROWS[0]])
    source = read_pairs(replace(config, limit=2))
    assert len(source.pairs) == 5 and "the text of an earlier probe" in source.notes[0]


def test_generated_and_own_sets_can_be_curated_and_say_where_each_pair_is_from(db: Database, tmp_path: Path) -> None:
    out = tmp_path / "generated.csv"
    write(template_rows(9, 0, PairRules(), {}), out, source="template", model="", prompt="template/1")
    curation = Curation(db, read_pairs(ProbeConfig(path=str(out), twin_column="twin", bias_type_column="bias_type")))
    curation.accept(_nth(curation, 0), "Ann")
    result = curation.result()
    assert result.columns == ("text", "twin", "bias_type", "group", "source", "model", "prompt", "created", "curation")
    assert result.rows[0][4:7] == ("template", "", "template/1")
    for language, size in {"en": 450, "es": 45, "zh": 45}.items():
        path = DEMO_FOLDER.parent / "probes" / f"{language}.csv"
        assert len(read_pairs(ProbeConfig(path=str(path), twin_column="twin", bias_type_column="bias_type")).pairs) == size


def test_probes_without_twins_and_types_can_be_curated(db: Database, tmp_path: Path) -> None:
    (tmp_path / "plain.csv").write_text("text,when\n=1+1 is what she calls maths.,2020\n", encoding="utf8")
    curation = Curation(db, read_pairs(ProbeConfig(path=str(tmp_path / "plain.csv"))))
    curation.accept(_nth(curation, 0), "Ann")
    assert curation.result().rows == (("=1+1 is what she calls maths.", "", "all", "accepted"),)


# The command line


def test_status_and_export_on_the_command_line(workspace: Path, source: ProbeConfig, tmp_path: Path) -> None:
    db = Database(sa.make_url(f"sqlite:///{workspace / 'biasdiff.db'}"))
    curation = Curation(db, read_pairs(source))
    refused = biasdiff("probes", "curate", "export", source.path, "--out", tmp_path / "out.csv")
    assert refused.exit_code == 2 and "No pair of" in refused.output
    _curated(curation)
    status = json.loads(ok("probes", "curate", "status", source.path, "--json"))
    assert status["by_type"]["gender"] == {"undecided": 0, "accepted": 1, "edited": 0, "rejected": 1}
    assert (status["digest"], status["head"], status["decision_log"]) == (curation.source.digest, curation.log.head()[1], [])
    shown = ok("probes", "curate", "export", source.path, "--out", tmp_path / "out.csv")
    assert f"written: {tmp_path / 'out.csv'}, {tmp_path / 'out.card.json'}" in shown
    assert f"3 pairs in the result, SHA-256 {curation.result().card.digest}" in shown
    assert (tmp_path / "out.csv").read_bytes() == curation.result().content
    with db.write(curation.log.audit_id) as connection:
        connection.execute(sa.text("UPDATE decisions SET auditor = 'Eve' WHERE auditor = 'Ben'"))
    broken = biasdiff("probes", "curate", "status", source.path)
    assert broken.exit_code == 1 and "action 1" in broken.output
    db.close()


def test_status_takes_other_columns_or_none(workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("sentence\nWomen never pay back what they borrow.\n", encoding="utf8")
    shown = ok(
        "probes", "curate", "status", tmp_path / "own.csv", "--text-column", "sentence", "--twin-column", "", "--bias-type-column", ""
    )
    assert "all          1" in shown
    assert "has no column 'text'" in biasdiff("probes", "curate", "status", tmp_path / "own.csv").output
