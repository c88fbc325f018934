"""`kubectl ipmp record`: the recording of a node's agent, which can be played again (docs/simulator.md)."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING

from kubectl_ipmp.kubectl import KubectlError, PluginError

if TYPE_CHECKING:
    import argparse

    from kubectl_ipmp.display import Display
    from kubectl_ipmp.kubectl import Kubectl, Object

OPTION = "--record"

OLDER = ".1"
"""Ends the name of the file that was full before."""

NOT_RECORDING = """\
the agent on {node} does not record. Switch it on, which restarts the agents (addresses stay where they are), and fetch
the recording once it has happened again:
  helm upgrade ipmp helm/ipmp --namespace {namespace} --reset-then-reuse-values --set agent.record.enabled=true"""


def run(options: argparse.Namespace, kubectl: Kubectl, display: Display) -> int:
    """Fetch the recording."""
    name = kubectl.agent_pod(options.node)
    (pod,) = [each for each in kubectl.pods(node=options.node) if each["metadata"]["name"] == name]
    there = recorded_at(pod)
    if there is None:
        raise PluginError(NOT_RECORDING.format(node=options.node, namespace=kubectl.namespace))
    path = options.file or Path(f"ipmp-{options.node}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}.jsonl")
    try:
        newest = kubectl.in_agent(name, "cat", there)
    except KubectlError as error:
        raise PluginError(f"{error}\nFetching a recording needs the verb create on pods/exec.") from None
    _write(path, newest)
    display.line(f"{path}: python -m ipmp_agent.simulate --replay {path} plays it again")
    with contextlib.suppress(KubectlError):  # there is none while the first file is not full
        before = kubectl.in_agent(name, "cat", f"{there}{OLDER}")
        older = path.with_name(f"{path.name}{OLDER}")
        _write(older, before)
        display.line(f"{older}: what was before")
    return 0


def _write(path: Path, text: str) -> None:
    """Write a new file. Raises PluginError."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise PluginError(f"{path} is there already: name another by --file") from None
    except OSError as error:
        raise PluginError(f"cannot write {path}: {error.strerror}") from None


def recorded_at(pod: Object) -> str | None:
    """Where an agent's container keeps its recording; None: it makes none."""
    for container in pod["spec"]["containers"]:
        words = [*(container.get("command") or []), *(container.get("args") or [])]
        for word, following in zip(words, [*words[1:], ""], strict=True):
            if word.startswith(f"{OPTION}="):
                return str(word.partition("=")[2])
            if word == OPTION:
                return str(following)
    return None
