"""The decorator of all config classes, and the checks that several of them share."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import Any, TypeVar, dataclass_transform

from biasdiff_core.errors import ConfigError

T = TypeVar("T")
ADDED = "added"


def added(default: Any) -> Any:
    """A field that came after audits were made with its class: while it has its default, which must do what was done before,
    it is left out of stage keys (`config.file.key_form`), so those audits' results stay valid."""
    return field(default=default, metadata={ADDED: True})


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field, added))
def config_class(cls: type[T]) -> type[T]:
    """A frozen, keyword-only dataclass that refuses unknown keys when it is read from a file.

    pydantic accepts a misspelt key in a plain dataclass in silence; `__pydantic_config__` on **every** class forbids it.
    """
    cls.__pydantic_config__ = {"extra": "forbid"}  # type: ignore[attr-defined]
    return dataclass(frozen=True, kw_only=True)(cls)


def require(ok: bool, what: str, mend: str = "") -> None:
    """Raise ConfigError(what, mend) unless `ok`."""
    if not ok:
        raise ConfigError(what, mend)


def require_positive(owner: str, **values: Any) -> None:
    """Raise ConfigError naming the first field that is not above zero, or not finite."""
    for name, value in values.items():
        require(
            0 < value < inf,
            f"{owner}.{name} is {value}, but must be above 0" + (" and finite." if value > 0 else "."),
            "Give a positive number.",
        )


def require_fraction(owner: str, **values: float) -> None:
    """Raise ConfigError naming the first field outside [0, 1]."""
    for name, value in values.items():
        require(0 <= value <= 1, f"{owner}.{name} is {value}, but must lie in [0, 1].", "Give a number from 0 to 1.")
