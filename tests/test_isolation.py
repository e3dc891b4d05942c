"""What may import what: the reading side without torch, the core without Streamlit, the layers; and that these checks can fail."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LINT = Path(sys.executable).with_name("lint-imports")
HEAVY = ("torch", "transformers", "peft", "faiss", "umap", "streamlit")

READING_SIDE = [
    "biasdiff_core",
    "biasdiff_core.audit",
    "biasdiff_core.cli",
    "biasdiff_core.errors",
    "biasdiff_core.results",
    "biasdiff_core.plan",
    "biasdiff_core.report",
    "biasdiff_core.attribution.store",
    "biasdiff_core.attribution.index",
    "biasdiff_core.attribution.search",
    "biasdiff_core.attribution.influence",
    "biasdiff_core.attribution.ranking",
    "biasdiff_core.attribution.baselines",
    "biasdiff_core.attribution.clusters",
    "biasdiff_core.attribution.map2d",
    "biasdiff_core.attribution.nearness",
    "biasdiff_core.attribution.probe_quality",
    "biasdiff_core.probe_report",
    "biasdiff_core.model.source",
    *(
        f"biasdiff_core.{package}.{path.stem}"
        for package in ("config", "workspace", "corpus", "review", "evaluation")
        for path in sorted((ROOT / "biasdiff_core" / package).glob("*.py"))
        if path.stem != "__init__"
    ),
]

# Run in a fresh interpreter: import each module named, then print which heavy packages that loaded, module by module.
LOADED = """
import importlib, sys
for module in {modules!r}:
    importlib.import_module(module)
    found = [name for name in {heavy!r} if name in sys.modules]
    if found:
        print(module, *found)
        break
"""

# As above, with a finder in front that refuses some packages, as if they were not installed.
BLOCKED = """
import importlib, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError("blocked: " + name, name=name)
sys.meta_path.insert(0, Refuse())
for module in {modules!r}:
    importlib.import_module(module)
print("imported")
"""


def python(code: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder)


def heavy_imports(modules: list[str], folder: Path = ROOT) -> str:
    """The first module that loaded something heavy, and what; empty when none did."""
    result = python(LOADED.format(modules=modules, heavy=HEAVY), folder)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_the_reading_side_loads_nothing_heavy() -> None:
    assert heavy_imports(READING_SIDE) == ""


def test_the_reading_side_imports_where_torch_is_not_installed() -> None:
    result = python(BLOCKED.format(modules=READING_SIDE, blocked=("torch", "transformers", "peft", "faiss", "umap")))
    assert result.stdout.strip() == "imported", result.stderr


def test_the_isolation_check_can_fail(tmp_path: Path) -> None:
    (tmp_path / "light.py").write_text("import json\n")
    (tmp_path / "hidden.py").write_text("import light\nfrom heavy_one import x\n")
    (tmp_path / "heavy_one.py").write_text("import torch\nx = torch\n")
    assert heavy_imports(["light"], tmp_path) == ""
    assert heavy_imports(["light", "hidden"], tmp_path) == "hidden torch"
    blocked = python(BLOCKED.format(modules=["hidden"], blocked=("torch",)), tmp_path)
    assert blocked.returncode != 0 and "blocked: torch" in blocked.stderr


def core_modules() -> list[str]:
    paths = sorted((ROOT / "biasdiff_core").rglob("*.py"))
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths]
    return [name for name in names if not name.endswith("__main__")]


def test_the_whole_core_imports_without_streamlit() -> None:
    modules = core_modules()
    assert len(modules) > 50 and "biasdiff_core.pipeline" in modules
    result = python(BLOCKED.format(modules=modules, blocked=("streamlit", "biasdiff_ui", "pages")))
    assert result.stdout.strip() == "imported", result.stderr


def test_audit_is_loaded_on_first_use_and_other_names_are_refused() -> None:
    result = python("import biasdiff_core, sys; assert 'biasdiff_core.audit' not in sys.modules; print(biasdiff_core.Audit.__name__)")
    assert result.stdout.strip() == "Audit", result.stderr
    assert "no attribute 'Audits'" in python("from biasdiff_core import Audits; Audits").stderr or "cannot import name" in (
        python("from biasdiff_core import Audits").stderr
    )


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(LINT), "--no-cache"], capture_output=True, text=True, cwd=folder)


def test_the_import_contracts_hold() -> None:
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout
    assert "0 broken" in result.stdout


def contracts() -> str:
    """The project's own contracts as an .importlinter file for a package of the same name."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["tool"]["importlinter"]
    lines = ["[importlinter]", "include_external_packages = True", "root_packages ="]
    lines += [f"    {name}" for name in settings["root_packages"]]
    for number, contract in enumerate(settings["contracts"]):
        lines.append(f"[importlinter:contract:{number}]")
        for key, value in contract.items():
            lines += [f"{key} ="] + [f"    {item}" for item in value] if isinstance(value, list) else [f"{key} = {value}"]
    return "\n".join(lines) + "\n"


def skeleton(folder: Path) -> Path:
    """Empty modules of every name that the contracts speak of."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["tool"]["importlinter"]
    layers = [name.strip() for c in settings["contracts"] for layer in c.get("layers", []) for name in layer.split("|")]
    for name in ("biasdiff_ui", "biasdiff_core", "biasdiff_core/attribution", *(f"biasdiff_core/{layer}" for layer in layers)):
        (folder / name).mkdir(exist_ok=True, parents=True)
        (folder / name / "__init__.py").write_text("")
    (folder / "biasdiff_core/attribution/index.py").write_text("import faiss\n")
    (folder / "biasdiff_core/attribution/map2d.py").write_text("import umap\n")
    (folder / "biasdiff_core/evaluation/lm_harness.py").write_text("import lm_eval\n")
    (folder / "biasdiff_core/corpus/generation").mkdir()
    (folder / "biasdiff_core/corpus/generation/__init__.py").write_text("")
    (folder / "biasdiff_core/corpus/generation/client.py").write_text("import openai\n")
    (folder / ".importlinter").write_text(contracts())
    return folder


def test_a_sound_skeleton_keeps_the_contracts(tmp_path: Path) -> None:
    result = lint(skeleton(tmp_path))
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("module", "line", "broken"),
    [
        ("workspace", "import biasdiff_core.audit", "Layers of the core"),
        ("corpus", "from biasdiff_core.model import x", "Layers of the core"),
        ("mitigation", "import biasdiff_core.evaluation", "Layers of the core"),
        ("config", "import streamlit", "never imports Streamlit"),
        ("report", "import biasdiff_ui", "never imports Streamlit"),
        ("review", "import faiss", "faiss is imported in one module"),
        ("pipeline", "import umap", "umap is imported in one module"),
        ("plan", "import lm_eval", "lm_eval is imported in one module"),
        ("corpus", "import openai", "openai is imported in one module"),
    ],
)
def test_a_broken_contract_is_caught(tmp_path: Path, module: str, line: str, broken: str) -> None:
    folder = skeleton(tmp_path)
    (folder / "biasdiff_core" / module / "__init__.py").write_text(line + "\n")
    (folder / "biasdiff_core" / "model" / "x.py").write_text("")
    result = lint(folder)
    assert result.returncode != 0
    assert any(broken in row and "BROKEN" in row for row in result.stdout.splitlines()), result.stdout + result.stderr
