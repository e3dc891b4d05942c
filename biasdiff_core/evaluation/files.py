"""Evaluation files that are one JSON object. Loads no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from biasdiff_core.corpus.refusals import NOT_UTF8
from biasdiff_core.errors import DataError


def read_json_object(path: Path, mend: str) -> dict[str, Any]:
    """The object in the file. Raises DataError, with `mend` as what to do, when it cannot be read or holds no JSON object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}.", mend) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not in UTF-8 (byte {error.start}).", NOT_UTF8.mend) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON ({error}).", mend) from error
    if not isinstance(content, dict):
        raise DataError(f"{path} holds no JSON object, but a {type(content).__name__}.", mend)
    return content
