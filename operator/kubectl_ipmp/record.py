"""`kubectl ipmp record`: the recording of a node's agent, which can be played again (docs/simulator.md)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from kubectl_ipmp.kubectl import KubectlError, PluginError

if TYPE_CHECKING:
    import argparse

    from kubectl_ipmp.display import Display
    from kubectl_ipmp.kubectl import Kubectl, Object

OPTION = "--record"

NOT_RECORDING = """\
the agent on {node} does not record: a recording begins with the agent, since a replay needs all it was told.
Switch it on and restart the agents (addresses stay where they are), and fetch it once it has happened again:
  helm upgrade ipmp helm/ipmp --namespace {namespace} --reuse-values \\
      --set 'agent.extraArgs={{--record=/var/lib/ipmp/recording.jsonl}}'"""


def run(options: argparse.Namespace, kubectl: Kubectl, display: Display) -> int:
    """Fetch the recording."""
    name = kubectl.agent_pod(options.node)
    (pod,) = [each for each in kubectl.pods(node=options.node) if each["metadata"]["name"] == name]
    there = recorded_at(pod)
    if there is None:
        raise PluginError(NOT_RECORDING.format(node=options.node, namespace=kubectl.namespace))
    path = options.file or Path(f"ipmp-{options.node}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}.jsonl")
    try:
        text = kubectl.in_agent(name, "cat", there)
    except KubectlError as error:
        raise PluginError(f"{error}\nFetching a recording needs the verb create on pods/exec.") from None
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise PluginError(f"{path} is there already: name another by --file") from None
    except OSError as error:
        raise PluginError(f"cannot write {path}: {error.strerror}") from None
    display.line(f"{path}: {text.count(chr(10))} entries; python -m ipmp_agent.simulate {path} plays it again")
    return 0


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
