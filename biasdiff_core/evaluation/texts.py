"""The texts by which the evaluation scores bias: what a probing set must be disjoint from. Loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from biasdiff_core.config import EvaluationConfig
from biasdiff_core.evaluation import seat, stereoset
from biasdiff_core.evaluation.pairs import pair_texts

SUITES = ("pairs", "stereoset", "seat")  # the inputs of an evaluation that these texts come from


def texts_by_suite(config: EvaluationConfig) -> dict[str, list[str]]:
    """The sentences of CrowS-Pairs, and of StereoSet and SEAT where the config names them. Raises as their `load_…`."""
    found = {"CrowS-Pairs": pair_texts(config.crows_pairs)}
    if config.stereoset is not None:
        tests = stereoset.load_tests(config.stereoset)
        found["StereoSet"] = [text for test in tests for text in (test.stereotype, test.anti_stereotype, test.unrelated)]
    if config.seat is not None:
        found["SEAT"] = seat.sentences_of(seat.load_tests(config.seat))
    return found


def scored_texts(config: EvaluationConfig) -> list[str]:
    """The same of all suites together, each text once."""
    return list(dict.fromkeys(text for texts in texts_by_suite(config).values() for text in texts))


def scored_settings(config: EvaluationConfig) -> dict[str, Any]:
    """The settings of the suites, which choose among the texts of their files."""
    return {"crows_pairs": config.crows_pairs, "stereoset": config.stereoset, "seat": config.seat}


def scored_digests(inputs: Mapping[str, str]) -> dict[str, str]:
    """Of an evaluation's inputs, the digests of the files that these texts come from."""
    return {name: inputs[name] for name in SUITES if name in inputs}
