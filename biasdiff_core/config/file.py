"""The file's edge: YAML to typed config and back, and the form that keys are made of."""

from __future__ import annotations

from dataclasses import asdict, fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from pydantic import TypeAdapter, ValidationError

from biasdiff_core.config.audit import AuditConfig
from biasdiff_core.config.base import ADDED
from biasdiff_core.errors import BiasDiffError, ConfigError

T = TypeVar("T")


@lru_cache
def _adapter(cls: Any) -> TypeAdapter[Any]:
    return TypeAdapter(cls)


def parse(cls: type[T], record: Any, where: str = "config") -> T:
    """`record` (plain values) as `cls`. Raises ConfigError naming the first field that is wrong, also unknown keys."""
    try:
        parsed: T = _adapter(cast(Any, cls)).validate_python(record)
    except ValidationError as error:
        first = error.errors()[0]
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, BiasDiffError):
            raise cause from error
        field = ".".join(str(part) for part in first["loc"]) or "(whole file)"
        raise ConfigError(f"{where}: {field}: {first['msg']} (got {first['input']!r:.80}).", "Correct that field.") from error
    return parsed


def canonical(config: Any) -> Any:
    """Plain JSON values of a config after parsing it through its types, so that `1` and `1.0` give the same key."""
    if not is_dataclass(config) or isinstance(config, type):
        return config
    return _adapter(type(config)).dump_python(parse(type(config), asdict(config)), mode="json")


def key_form(config: Any) -> Any:
    """`canonical`, less the fields that were `added` later and have their default."""
    if not is_dataclass(config) or isinstance(config, type):
        return config
    return _without_added(config, canonical(config))


def _without_added(config: Any, record: dict[str, Any]) -> dict[str, Any]:
    kept = {}
    for field in fields(config):
        value = getattr(config, field.name)
        if not (ADDED in field.metadata and value == field.default):
            kept[field.name] = _without_added(value, record[field.name]) if is_dataclass(value) else record[field.name]
    return kept


def load(path: Path) -> AuditConfig:
    """Read an audit.yaml. Raises ConfigError with the field that is wrong."""
    try:
        record = yaml.safe_load(path.read_text(encoding="utf8"))
    except FileNotFoundError as error:
        raise ConfigError(f"There is no file {path}.", "Name an audit.yaml, e.g. of an audit folder.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {error}.", "Correct the file.") from error
    return parse(AuditConfig, record, where=str(path))


def dump(config: AuditConfig) -> str:
    """The config as YAML that `load` reads back to an equal config."""
    return yaml.safe_dump(canonical(config), sort_keys=False, allow_unicode=True)
