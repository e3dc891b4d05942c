"""CrowS-Pairs of the bundled model on all pairs, in both conventions: the reference figures of the evaluation.

python -m benchmarks.crows_pairs
"""

from __future__ import annotations

import time

from benchmarks.record import record, record_metric
from biasdiff_core.config import CrowsPairsConfig, EvaluationConfig, ModelConfig
from biasdiff_core.evaluation.crows_pairs import figures, load_pairs, score_pairs
from biasdiff_core.model.load import load_model
from biasdiff_core.results import no_progress
from biasdiff_core.workspace.audits import default_workspace


def main() -> None:
    """Score all 1508 pairs and record the metric, stereotype and anti-stereotype scores."""
    config, model = EvaluationConfig(crows_pairs=CrowsPairsConfig()), ModelConfig()
    loaded = load_model(model, default_workspace())
    pairs = load_pairs(config.crows_pairs)
    for scoring in config.crows_pairs.scorings:
        started = time.monotonic()
        scores = score_pairs(loaded.model, loaded.tokenizer, pairs, (scoring,), token_budget=config.token_budget, progress=no_progress)
        seconds = time.monotonic() - started
        for metric in figures(scores, scoring, bootstrap=config.bootstrap, seed=config.seed)[:4]:
            record_metric(metric.name, metric, model=model.name)
        record(f"crows_pairs.{scoring}.seconds", seconds, n=len(pairs), unit="seconds for all pairs", model=model.name)


if __name__ == "__main__":
    main()
