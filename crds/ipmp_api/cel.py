"""Pieces of CEL, the expression language of the API server's validation rules."""

from __future__ import annotations


def quote(text: str) -> str:
    """Write text as a CEL string."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
