"""Measured figures: `python -m benchmarks.NAME` appends rows to `benchmarks/results.jsonl`."""
