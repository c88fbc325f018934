"""What is wrong with a manifest: every wrong field, each with its value and what to do, in the API server's words."""

from __future__ import annotations

import json
from typing import Any

from ipmp_api.frozen import frozen

INVALID = "Invalid value"
REQUIRED = "Required value"
UNSUPPORTED = "Unsupported value"
DUPLICATE = "Duplicate value"
TOO_MANY = "Too many"
TOO_LONG = "Too long"
UNKNOWN = "Unknown field"


@frozen
class FieldError:
    """One wrong field. `field` is its path (`spec.interfaces[0].name`), `kind` the API server's class of fault."""

    field: str
    value: Any
    message: str
    kind: str = INVALID

    def __str__(self) -> str:
        """The line that the API server would print for the same fault."""
        if self.kind == REQUIRED:
            return f"{self.field}: {self.kind}" + (f": {self.message}" if self.message else "")
        if self.kind == UNKNOWN:
            return self.message
        if self.kind == TOO_LONG:
            return f"{self.field}: {self.kind}: {self.message}"
        shown = json.dumps(self.value, ensure_ascii=False, default=str)
        return f"{self.field}: {self.kind}: {shown}: {self.message}".removesuffix(": ")


class ValidationError(ValueError):
    """A manifest was refused; `errors` names every wrong field, not only the first."""

    def __init__(self, errors: tuple[FieldError, ...]) -> None:
        super().__init__("\n".join(str(error) for error in errors))
        self.errors = errors


class ManifestError(ValueError):
    """Text that is no YAML manifest. `line` and `column` count from 1; 0 means unknown."""

    def __init__(self, problem: str, line: int = 0, column: int = 0) -> None:
        where = f"line {line}, column {column}: " if line else ""
        super().__init__(where + problem)
        self.problem = problem
        self.line = line
        self.column = column
