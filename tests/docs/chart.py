"""Writes helm/ipmp/README.md from values.yaml and its comments. Run: .venv/bin/python -m tests.docs.chart."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

CHART = Path(__file__).parents[2] / "helm/ipmp"
PATH = CHART / "README.md"

TEXT = """\
# ipmp

{description}.

    helm install ipmp helm/ipmp --namespace ipmp-system --create-namespace \\
      --set image.registry=REGISTRY --set image.tag={version}

The operator turns every IPMPGroup into one IPMPNodeGroup for each node and a DaemonSet of agents, which starts with the
first group. Its template is in the ConfigMap `ipmp-agent-template`: what post-renderers and patches cannot reach there
has a value below. Agents use their nodes' network and need NET_ADMIN and NET_RAW: where Pod Security admission is
enforced, the namespace needs the level `privileged`.

## Values

Generated from values.yaml: `.venv/bin/python -m tests.docs.chart`. What is not in this table is refused by name. `null`
drops a default that is a list or a map.

| value | default | what it is |
|---|---|---|
{rows}
"""


def explained(text: str) -> dict[str, str]:
    """The comment of each value, which begins with the value's full name, by that name."""
    found: dict[str, str] = {}
    for block in re.findall(r"(?:^ *#.*\n)+", text, re.MULTILINE):
        words = " ".join(line.strip().removeprefix("#").strip() for line in block.splitlines())
        name, _, rest = words.partition(" ")
        found[name] = rest
    return found


def _default(values: dict[str, Any], name: str) -> Any:
    inner: Any = values
    for part in name.split("."):
        inner = inner[part]
    return inner


def _rows() -> Iterator[str]:
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    values = yaml.safe_load(text)
    for name, words in explained(text).items():
        default = json.dumps(_default(values, name))
        yield f"| `{name}` | `{default}` | {words.replace('|', chr(92) + '|')} |"


def text() -> str:
    """The whole page."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    return TEXT.format(description=chart["description"], version=chart["version"], rows="\n".join(_rows()))


if __name__ == "__main__":
    PATH.write_text(text(), encoding="utf-8")
