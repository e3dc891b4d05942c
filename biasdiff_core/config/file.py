"""The file's edge: YAML to typed config and back, and the form that keys are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields, is_dataclass
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast, get_args, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from biasdiff_core.config.audit import AuditConfig
from biasdiff_core.config.base import ADDED
from biasdiff_core.errors import BiasDiffError, ConfigError, one_line

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
        raise _refusal(cls, first, where) from error
    return parsed


def _refusal(cls: Any, error: ErrorDetails, where: str) -> ConfigError:
    """What pydantic found, in the file's own words."""
    *path, last = error["loc"] or ("",)
    field = ".".join(str(part) for part in error["loc"])
    if error["type"] == "missing":
        return ConfigError(f"{where}: {field} is missing.", f"Add it: `{last}: …`.")
    if error["type"] in ("unexpected_keyword_argument", "invalid_key"):
        known = [known.name for known in fields(_class_at(cls, path))]
        close = get_close_matches(str(last), known, n=1)
        return ConfigError(
            f"{where}: there is no field {field}.", f"Did you mean {close[0]}?" if close else f"There are: {', '.join(known)}."
        )
    if error["type"] == "dataclass_type":
        what = f"{field} is" if field else "the whole file is"
        return ConfigError(f"{where}: {what} {error['input']!r:.80}, not fields with values.", "Write one `field: value` a line.")
    return ConfigError(f"{where}: {field}: {error['msg']} (got {error['input']!r:.80}).", "Correct that field.")


def _class_at(cls: Any, path: Sequence[int | str]) -> Any:
    """The config class of the section at `path`."""
    for part in path:
        kind = get_type_hints(cls).get(str(part), cls)
        cls = next((option for option in get_args(kind) if is_dataclass(option)), kind)
    return cls


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
        return _read(path.read_text(encoding="utf8"), str(path))
    except FileNotFoundError as error:
        raise ConfigError(f"There is no file {path}.", "Name an audit.yaml, e.g. of an audit folder.") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {one_line(error)}.", "Name an audit.yaml that you may read.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not in UTF-8 (byte {error.start}).", "Save the file as UTF-8.") from error
    except yaml.MarkedYAMLError as error:
        place = f" in line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1}" if error.problem_mark else ""
        raise ConfigError(f"{path} is not YAML: {error.problem}{place}.", "Correct the file.") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path} is not YAML: {one_line(error)}.", "Correct the file.") from error


@lru_cache  # the app asks for the same audits' configs on every run of a page, and YAML in pure Python is slow
def _read(text: str, where: str) -> AuditConfig:
    return parse(AuditConfig, yaml.load(text, _OnceLoader), where=where)  # noqa: S506 - a SafeLoader


class _OnceLoader(yaml.SafeLoader):
    """Refuses a mapping that names a key twice, of which YAML's reader keeps the last in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        repeated = next((name for name in names if names.count(name) > 1), None)
        if repeated is not None:
            raise yaml.constructor.ConstructorError(None, None, f"the field {repeated} stands there more than once", node.start_mark)
        return super().construct_mapping(node, deep)


def dump(config: AuditConfig) -> str:
    """The config as YAML that `load` reads back to an equal config."""
    return yaml.safe_dump(canonical(config), sort_keys=False, allow_unicode=True)
