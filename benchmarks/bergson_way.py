"""Bergson's per-example gradients, in an environment of its own: `benchmarks.featurize --bergson PYTHON` starts this and asks for rounds.

PYTHON: the interpreter of an environment with bergson, datasets, peft, transformers and torch. Imports nothing of ours.

Argument: a folder with `job.json` (base model, adapter, dtype, token ids, our batches). Each line of standard input names a
layout; the answer is a line with the CPU seconds that it took. The rows of `module` are left in `module.npy`.

global    one dense Rademacher matrix over all LoRA weights, to 8,192; it is made anew in every batch, so batches are its own, as large
          as its default budget of 2,048 tokens allows
module    its default layout, two small matrices a module, to 8 × 8 numbers each: 7,680 for the bundled model; batches as ours

Both take plain gradients: with Adam's map Bergson first forms each module's gradients whole, as the map asks.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import bergson
import numpy as np
import torch
from bergson.data import allocate_batches
from bergson.utils.peft import detect_peft_modules
from datasets import Dataset
from peft import PeftModel
from transformers import AutoModelForCausalLM

LAYOUTS = {"global": 8192, "module": 8}
TARGETS = {"global": "global", "module": "per_module"}


def main(folder: Path) -> None:
    """Answer layouts with seconds until the input ends; the first line says which version of Bergson this is."""
    job = json.loads((folder / "job.json").read_text(encoding="utf8"))
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=getattr(torch, job["dtype"]))
    model = PeftModel.from_pretrained(model, job["adapter"], autocast_adapter_dtype=False).eval()
    # As its own worker has it: gradients reach every module by way of the embedding, whose own is thrown away.
    model.requires_grad_(False)
    model.get_input_embeddings().requires_grad_(True)
    data = Dataset.from_dict({"input_ids": job["ids"]})
    batches = {"global": allocate_batches([len(ids) for ids in job["ids"]], bergson.IndexConfig.token_batch_size), "module": job["batches"]}
    print(json.dumps({"version": bergson.__version__, "threads": torch.get_num_threads()}), flush=True)
    for line in sys.stdin:
        layout = line.strip()
        with TemporaryDirectory() as scratch:
            started = time.process_time()
            rows = gradients(model, data, layout, batches[layout], Path(scratch))
            seconds = time.process_time() - started
        np.save(folder / f"{layout}.npy", rows)
        print(json.dumps({"seconds": seconds}), flush=True)


def gradients(model: PeftModel, data: Dataset, layout: str, batches: list[list[int]], scratch: Path) -> np.ndarray:
    """Projected gradients [n, numbers] of each example's mean token loss."""
    config = bergson.IndexConfig(
        run_path=str(scratch / "index"),
        projection_dim=LAYOUTS[layout],
        projection_target=TARGETS[layout],
        loss_reduction="mean",
    )
    config.partial_run_path.mkdir()
    processor = bergson.GradientProcessor(projection_dim=LAYOUTS[layout], projection_target=TARGETS[layout])
    collector = bergson.InMemoryCollector(
        model=model.base_model, cfg=config, processor=processor, target_modules=detect_peft_modules(model), data=data
    )
    bergson.CollectorComputer(model=model, data=data, collector=collector, batches=batches, cfg=config).run_with_collector_hooks()
    return torch.cat([part.float().flatten(1) for part in collector.gradients.values()], dim=1).numpy()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
