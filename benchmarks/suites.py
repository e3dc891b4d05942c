"""Seconds an item of every evaluation takes on the bundled model: what `cost.RATES` predicts with where nothing was measured yet.

python -m benchmarks.suites
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from benchmarks.record import dry_option, record, require_data
from biasdiff_core.config import AnswersConfig, CrowsPairsConfig, EvaluationConfig, ModelConfig, SeatConfig, StereoSetConfig, TrexConfig
from biasdiff_core.evaluation.suites import Subject, asked_suites, evaluate
from biasdiff_core.model.load import load_model
from biasdiff_core.workspace.audits import default_workspace

ITEMS = 200  # of StereoSet and T-REx


@click.command()
@dry_option
def main(dry: bool) -> None:
    """Record the seconds of each suite over its items."""
    config = EvaluationConfig(
        crows_pairs=CrowsPairsConfig(pairs=400),
        stereoset=StereoSetConfig(path=str(require_data("stereoset", "dev.json")), limit=ITEMS),
        seat=SeatConfig(path=str(require_data("seat"))),
        trex=TrexConfig(path=str(require_data("trex", "cloze_queries.csv")), limit=ITEMS),
        answers=AnswersConfig(),
    )
    loaded = load_model(ModelConfig(), default_workspace())
    subject = Subject(model=loaded.model, tokenizer=loaded.tokenizer, instruction="", trained_on=())
    with tempfile.TemporaryDirectory(prefix="biasdiff-suites-") as folder:
        times = evaluate(subject, config, Path(folder), lambda _: None).times
    for name, (suite, _) in asked_suites(config).items():
        seconds, items = times[name]["seconds"], times[name]["items"]
        assert seconds is not None and items
        metric, unit = f"evaluation.seconds_per_item.{name}", f"seconds an item of {suite.title}, float32"
        record(metric, round(seconds / items, 4), n=int(items), unit=unit, model=ModelConfig().name, dry=dry)


if __name__ == "__main__":
    main()
