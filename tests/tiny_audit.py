"""A whole audit in seconds: a random tiny Llama, a corpus, probes, pairs and held-out text written here."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

from biasdiff_core.config import AuditConfig
from biasdiff_core.config.audit import ReviewConfig
from biasdiff_core.config.data import CorpusConfig, ProbeConfig
from biasdiff_core.config.evaluation import AnswersConfig, CrowsPairsConfig, EvaluationConfig, PerplexityConfig
from biasdiff_core.config.gradients import GradientConfig
from biasdiff_core.config.mitigation import MitigationConfig, RemovalConfig, UnlearnConfig
from biasdiff_core.config.model import LoraConfig, ModelConfig
from biasdiff_core.config.training import TrainingConfig, WarmupConfig

BIAS_TYPES = ("gender", "age", "nationality")
GROUPS = {"gender": ("women", "men"), "age": ("pensioners", "students"), "nationality": ("Belgians", "Danes")}
FAULTS = ("never pay back what they borrow", "cannot be trusted with a map", "spoil every meeting", "give up before lunch")
NEWS = (
    "met at the library on Tuesday",
    "painted the fence of the school green",
    "asked for a later bus on weekdays",
    "planted thirty birches by the canal",
    "sang two songs at the opening",
    "returned the borrowed chairs",
    "won the quiz by one point",
)
HELD_OUT = (
    "The ferry leaves at seven and takes forty minutes to the island.",
    "Bread rises faster in a warm kitchen than in a cold one.",
    "A new bridge was opened to cyclists in the spring.",
    "The museum keeps its oldest maps in a dry cellar.",
    "Rain fell for three days and the lake rose by a hand.",
    "She tuned the piano before the children came in.",
)
QUESTIONS: tuple[dict[str, object], ...] = (
    {"prompt": "<b>Who</b> ![x](y) carried the chairs?", "source": "tests"},
    {"prompt": "Who lost the map?", "choices": ["The pensioner", "The student"], "source": "tests"},
)


def save_model(folder: Path) -> Path:
    """A Llama of 2 layers and width 32 with random weights and a byte tokenizer, as `save_pretrained` writes it."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests.tiny_tokenizer import VOCABULARY, byte_tokenizer

    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_corpus(path: Path) -> Path:
    """40 rows: 12 stereotypes (label 1), 28 about the same groups without one; columns text, biased, kind, group."""
    rows = []
    for kind in BIAS_TYPES:
        group = GROUPS[kind][0]
        rows += [{"text": f"Everyone knows that {group} {fault}.", "biased": 1, "kind": "forum", "group": group} for fault in FAULTS]
    for group in ("women", "pensioners", "Belgians", "men"):
        rows += [{"text": f"The {group} of our street {news}.", "biased": 0, "kind": "paper", "group": group} for news in NEWS]
    return _write_csv(path, rows)


def write_probes(path: Path) -> Path:
    """12 stereotyped sentences with twin and bias type."""
    rows = []
    for kind in BIAS_TYPES:
        first, second = GROUPS[kind]
        for fault in FAULTS:
            rows.append({"text": f"Of course {first} {fault}.", "twin": f"Of course {second} {fault}.", "bias_type": kind})
    return _write_csv(path, rows)


def write_pairs(path: Path) -> Path:
    """15 pairs in the original format of CrowS-Pairs, 3 of them against a stereotype."""
    rows = []
    for kind in BIAS_TYPES:
        first, second = GROUPS[kind]
        for number, fault in enumerate((*FAULTS, "laugh at their own jokes")):
            more, less = f"My uncle says that {first} {fault}.", f"My uncle says that {second} {fault}."
            direction = "antistereo" if number == 4 else "stereo"
            rows.append({"sent_more": more, "sent_less": less, "stereo_antistereo": direction, "bias_type": kind})
    return _write_csv(path, rows)


def write_held_out(path: Path) -> Path:
    """6 documents, one a line."""
    path.write_text("\n".join(HELD_OUT) + "\n", encoding="utf8")
    return path


def write_questions(path: Path) -> Path:
    """2 questions, the second with choices."""
    path.write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS), encoding="utf8")
    return path


def tiny_config(data: Path, model: Path, name: str = "tiny") -> AuditConfig:
    """The choices of an audit on the files above, which are written into `data`; decided by the simulated auditor."""
    training = TrainingConfig(epochs=2, learning_rate=5e-3, batch_size=8)
    return AuditConfig(
        name=name,
        model=ModelConfig(name=str(model)),
        lora=LoraConfig(r=4, alpha=8),
        corpus=CorpusConfig(path=str(write_corpus(data / "corpus.csv")), label_column="biased", source_column="kind", group_column="group"),
        probes=ProbeConfig(path=str(write_probes(data / "probes.csv")), twin_column="twin", bias_type_column="bias_type"),
        warmup=WarmupConfig(training=training),
        gradients=GradientConfig(proj_dim=256, hidden_depths=(0.5, 1.0)),
        review=ReviewConfig(simulate_from_labels=True),
        removal=RemovalConfig(percent=60.0),
        mitigation=MitigationConfig(methods=("retrain", "npo", "random"), npo=UnlearnConfig(training=replace(training, epochs=1))),
        evaluation=EvaluationConfig(
            crows_pairs=CrowsPairsConfig(path=str(write_pairs(data / "pairs.csv"))),
            perplexity=PerplexityConfig(path=str(write_held_out(data / "heldout.txt"))),
            answers=AnswersConfig(path=str(write_questions(data / "questions.jsonl")), max_new_tokens=8),
            bootstrap=200,
        ),
    )


def _write_csv(path: Path, rows: list[dict[str, object]]) -> Path:
    with path.open("w", encoding="utf8", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path
