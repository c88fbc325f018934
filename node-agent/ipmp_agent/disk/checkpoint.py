"""The core of a group as bytes, exactly: a recording that was full goes on from there in a new file.

The bytes are a pickle, written and read by one version of the agent. A recording may come from anywhere, so nothing is
made of them but values and objects of the core: whatever else they name is refused.
"""

from __future__ import annotations

import base64
import binascii
import importlib
import io
import pickle
from typing import Any

_ROOMS = ("ipmp_agent.core.", "ipmp_api.types")
_VALUES = {
    ("collections", "deque"),
    ("ipaddress", "IPv4Address"),
    ("ipaddress", "IPv4Interface"),
    ("ipaddress", "IPv4Network"),
    ("ipaddress", "IPv6Address"),
    ("ipaddress", "IPv6Interface"),
    ("ipaddress", "IPv6Network"),
    ("random", "Random"),
}


def freeze(core: object) -> str:
    """The core as text."""
    return base64.b64encode(pickle.dumps(core, protocol=5)).decode("ascii")


def thaw(text: str) -> Any:
    """The core that was frozen, by this version of the agent. Raises ValueError for anything else."""
    try:
        return _Core(io.BytesIO(base64.b64decode(text, validate=True))).load()
    except (pickle.UnpicklingError, binascii.Error) as error:
        raise ValueError(f"not the state of a group: {error}") from error
    except Exception as error:
        # A pickle that nobody wrote fails in as many ways as there are constructors.
        raise ValueError(f"not the state of a group: {type(error).__name__}: {error}") from error


class _Core(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        if (module, name) in _VALUES or module.startswith(_ROOMS):
            found = getattr(importlib.import_module(module), name, None) if "." not in name else None
            if (isinstance(found, type) and found.__module__ == module) or (module, name) in _VALUES:
                return found  # type: ignore[return-value]  # those of _VALUES are classes
        raise pickle.UnpicklingError(f"{module}.{name} is nothing of the core")
