"""The pairs of CrowS-Pairs: the bundled file, files of one's own, the revision, and refusals."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest

from biasdiff_core.config.evaluation import CrowsPairsConfig
from biasdiff_core.errors import DataError
from biasdiff_core.evaluation.pairs import load_pairs

bundled = pytest.mark.skipif(find_spec("fairllms") is None, reason="the wheel fairllms, which carries CrowS-Pairs, is not installed")
HEADER = ",sent_more,sent_less,stereo_antistereo,bias_type"
DATA = Path(os.environ.get("BIASDIFF_DATA", Path(__file__).resolve().parents[1].parent / "shared" / "data"))


@bundled
def test_the_bundled_file_has_the_published_counts() -> None:
    pairs = load_pairs(CrowsPairsConfig())
    assert len(pairs) == len({found.id for found in pairs}) == 1508
    assert sum(found.direction == "stereo" for found in pairs) == 1290
    assert len({found.bias_type for found in pairs}) == 9
    assert pairs[1].sent_more == "The poor are really ignorant about how to handle the money they do have."


@bundled
def test_a_subset_is_seeded_without_repetition_and_in_order() -> None:
    every = {found.id: place for place, found in enumerate(load_pairs(CrowsPairsConfig()))}
    chosen = [every[found.id] for found in load_pairs(CrowsPairsConfig(pairs=100, seed=3))]
    assert chosen == sorted(set(chosen)) and len(chosen) == 100
    assert chosen == [every[found.id] for found in load_pairs(CrowsPairsConfig(pairs=100, seed=3))]
    assert chosen != [every[found.id] for found in load_pairs(CrowsPairsConfig(pairs=100, seed=4))]
    with pytest.raises(DataError, match="1508"):
        load_pairs(CrowsPairsConfig(pairs=1509))


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text(
        f'{HEADER}\n0,"Old, they say","Young, they say",stereo,age\n1,a,b,antistereo,age\n2,a,b,antistereo,age\n', encoding="utf8"
    )
    pairs = load_pairs(CrowsPairsConfig(path=str(path)))
    assert [found.direction for found in pairs] == ["stereo", "antistereo", "antistereo"]
    assert pairs[0].sent_more == "Old, they say"
    # The same content again is told apart by its occurrence.
    assert pairs[2].id == f"{pairs[1].id}-1"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("sent_more,sent_less\na,b\n", "stereo_antistereo"),
        (f"{HEADER}\n", "no pairs"),
        (f"{HEADER}\n0,a,b,both,age\n", "line 2: 'both'"),
        ("sent_more\tsent_less\tbias_type\na\tb\tage\n", "no column 'stereo_antistereo'"),
        ("first;second\na;b\n", "separate columns by commas"),
        (f"{HEADER}\n0,a,b,stereo,age\n1,a, ,stereo,age\n2,,b,stereo,age\n", "lines 3, 4"),
    ],
)
def test_a_file_in_another_format_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text(content, encoding="utf8")
    with pytest.raises(DataError, match=message):
        load_pairs(CrowsPairsConfig(path=str(path)))


def test_the_revised_version_is_told_by_its_header(tmp_path: Path) -> None:
    # Tabs in a file named .csv, commas and quotes in the sentences, a bias type in capitals.
    path = tmp_path / "revised.csv"
    header = HEADER.replace(",", "\t")
    path.write_text(f'{header}\n0\tOld, they say\tYoung, "they" say\tstereo\tRace-color\n', encoding="utf8")
    (found,) = load_pairs(CrowsPairsConfig(path=str(path)))
    assert (found.sent_more, found.sent_less, found.bias_type) == ("Old, they say", 'Young, "they" say', "race-color")
    # Quoted cells lose their quotes, unless one cell shows that quotes are letters here.
    quoted = f'{header}\n0\t"""Yes,"" he said"\t"""No,"" he said"\tstereo\tage\n'
    path.write_text(quoted, encoding="utf8")
    assert load_pairs(CrowsPairsConfig(path=str(path)))[0].sent_more == '"Yes," he said'
    path.write_text(f'{header}\n0\t"Yes," he said\t"No," he said\tstereo\tage\n', encoding="utf8")
    assert load_pairs(CrowsPairsConfig(path=str(path)))[0].sent_more == '"Yes," he said'


@pytest.mark.parametrize(
    ("name", "count", "stereo"), [("crows_pairs_EN_revised.csv", 1467, 1257), ("crows_pairs_EN_revised+210.csv", 1677, 1466)]
)
def test_the_published_revisions_are_read_whole(name: str, count: int, stereo: int) -> None:
    path = DATA / "crows_pairs_revised" / name
    if not path.exists():
        pytest.skip(f"needs crows_pairs_revised/{name} under BIASDIFF_DATA")
    pairs = load_pairs(CrowsPairsConfig(path=str(path)))
    assert (len(pairs), sum(found.direction == "stereo" for found in pairs)) == (count, stereo)
    assert len({found.id for found in pairs}) == count and "race-color" in {found.bias_type for found in pairs}
