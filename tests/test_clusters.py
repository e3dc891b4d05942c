"""Clusters of the map and their names."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from biasdiff_core.attribution.clusters import NAMELESS, cluster_words, clusters
from biasdiff_ui.explore_map import Classes, map_spec

SIZES = (60, 30, 10)
TOPICS = ("rivers and lakes", "rivers and engines", "rivers and songs")


@pytest.fixture
def planted() -> tuple[np.ndarray, np.ndarray]:
    """Three far groups of points, shuffled, and the group of each."""
    random = np.random.default_rng(0)
    group = random.permutation(np.repeat(range(3), SIZES))
    return np.array([[0, 0], [50, 0], [0, 50]])[group] + random.normal(size=(len(group), 2)), group


def test_far_groups_are_found_the_largest_first(planted: tuple[np.ndarray, np.ndarray]) -> None:
    xy, group = planted
    assert clusters(xy, 3, seed=0).tolist() == group.tolist()
    assert clusters(xy, 3, seed=7).tolist() == group.tolist()


def test_no_more_clusters_than_places() -> None:
    assert sorted(clusters(np.array([[0.0, 0.0]] * 3 + [[1.0, 1.0]]), 7, seed=0)) == [0, 0, 0, 1]
    assert clusters(np.zeros((1, 2)), 7, seed=0).tolist() == [0]


def test_a_cluster_is_named_by_what_others_lack(planted: tuple[np.ndarray, np.ndarray]) -> None:
    _, group = planted
    names = cluster_words([TOPICS[code] for code in group], group)
    assert [name.split(", ")[0] for name in names] == ["lakes", "engines", "songs"]
    shuffled = np.random.default_rng(1).permutation(len(group))
    assert cluster_words([TOPICS[code] for code in group[shuffled]], group[shuffled]) == names


def test_a_word_repeated_in_one_text_names_nothing() -> None:
    texts = ["stone", "stone", "stone", "shout " * 50 + "stone", "leaf", "leaf"]
    assert cluster_words(texts, np.array([0, 0, 0, 0, 1, 1]))[0].split(", ")[0] == "stone"


def test_names_stand_on_the_map_at_their_places(planted: tuple[np.ndarray, np.ndarray]) -> None:
    xy, group = planted
    table = pd.DataFrame({"x": xy[:, 0], "y": xy[:, 1], "rank": range(1, len(xy) + 1)})
    found = Classes(
        words=["a", "b", "c"], colours=["#000000"] * 3, codes=group, places=table[["x", "y"]].groupby(group).median().to_numpy()
    )
    names = map_spec(table, found)["series"][-1]
    assert [(item["name"], round(item["value"][0], -1), round(item["value"][1], -1)) for item in names["data"]] == [
        ("a", 0, 0),
        ("b", 50, 0),
        ("c", 0, 50),
    ]
    few = found.of(group == 1)  # the places are those of the whole map, whatever is drawn
    assert map_spec(table[group == 1], few)["series"][-1]["data"] == names["data"]


def test_function_words_name_nothing_but_pronouns_of_gender_do() -> None:
    texts = ["the nurse and her of it", "the nurse and her of more", "its engine or its more"] + ["an engine was of more"] * 2 + ["of the"]
    names = cluster_words(texts, np.array([0, 0, 1, 1, 1, 2]))
    assert names == ["her, nurse", "engine", NAMELESS]


def test_contractions_name_nothing_and_possessives_their_word() -> None:
    texts = ["Women’s work isn't more", "a women's work doesn’t", "it's an engine", "it's the engine"]
    assert cluster_words(texts, np.array([0, 0, 1, 1])) == ["women, work", "engine"]
