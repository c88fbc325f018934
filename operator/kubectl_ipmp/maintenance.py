"""`kubectl ipmp offline` and `online`: entries of spec.offline, without touching those of others."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from kubectl_ipmp.kubectl import KubectlError, PluginError
from kubectl_ipmp.view import NodeView, condition, look

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from kubectl_ipmp.display import Display
    from kubectl_ipmp.kubectl import Kubectl, Object

TRIES = 10
"""How often a change is tried again because somebody else wrote the list meanwhile."""

ANSWER = 15.0
"""Seconds in which an agent says what it makes of the request."""

POLL = 0.3
"""Seconds between two looks."""

PAUSE = 0.2
"""Seconds before a change is tried again."""


def offline(options: argparse.Namespace, kubectl: Kubectl, display: Display) -> int:
    """Take an interface out of use; with --wait until it carries nothing."""
    view = _find(kubectl, options)
    ours = change(kubectl, view.name, lambda entries: _with(entries, view, options.interface))
    try:
        view = _await_answer(kubectl, view.name, options.interface, options.timeout)
    except _RefusedError as refusal:
        if ours:  # what is refused now would be done without a word as soon as another interface works
            change(kubectl, view.name, lambda entries: _without(entries, view, options.interface))
        raise PluginError(f"the agent on {view.node} refuses: {refusal}") from None
    name = _name(view, options.interface)
    if options.wait:
        view = _until(kubectl, view.name, lambda seen: not seen.on(name), options.timeout)
        if view.on(name):
            left = ", ".join(view.on(name))
            raise PluginError(f"{name} is offline and after {options.timeout:.0f} s still carries {left}")
    display.line(f"{name} of group {view.group} on {view.node} is offline and carries {_count(view.on(name))}")
    return 0


def online(options: argparse.Namespace, kubectl: Kubectl, display: Display) -> int:
    """Give an interface back; with --wait until it is in use or in reserve."""
    view = _find(kubectl, options)
    name = _name(view, options.interface)
    if not _matching(_entries(view.whole), view, options.interface):
        state = _state(view, name)
        if state == "offline":
            raise PluginError(
                f"{name} is not in spec.offline of {view.name}: it was taken offline on the node itself, where "
                f"ipmpadm online {name} gives it back (kubectl --namespace {kubectl.namespace} exec "
                f"AGENT-POD -- ipmpadm online {name})"
            )
        raise PluginError(f"{name} of group {view.group} on {view.node} is not offline: it is {state}")
    change(kubectl, view.name, lambda entries: _without(entries, view, options.interface))
    view = _until(kubectl, view.name, lambda seen: seen.current and _state(seen, name) != "offline", ANSWER)
    if options.wait:
        view = _until(kubectl, view.name, lambda seen: _state(seen, name) == "ok", options.timeout)
        if _state(view, name) != "ok":
            raise PluginError(f"{name} is not usable after {options.timeout:.0f} s: it is {_state(view, name)}")
    if not view.current:
        display.line(f"{name} of group {view.group} on {view.node} is online as soon as an agent reads it")
        return 0
    state = _state(view, name)
    display.line(f"{name} of group {view.group} on {view.node} is {'online' if state == 'ok' else state}")
    return 0


# -- the list


def change(kubectl: Kubectl, name: str, wanted: Callable[[Sequence[Object]], list[Object] | None]) -> bool:
    """Write spec.offline as `wanted` makes it of what is there; None: leave it. Returns whether it was written.

    The write holds only while the list is as it was read, so it never takes away the entry of somebody else.
    Raises PluginError.
    """
    for _ in range(TRIES):
        whole = kubectl.node_group(name)
        entries = _entries(whole)
        new = wanted(entries)
        if new is None:
            return False
        try:
            kubectl.patch_node_group(name, _patch(whole, entries, new))
            return True
        except KubectlError as error:
            if not _overtaken(str(error)):
                raise PluginError(_explained(str(error))) from None
        time.sleep(PAUSE)
    raise PluginError(f"others write spec.offline of {name} all the time: try again")


def _patch(whole: Object, entries: Sequence[Object], new: list[Object]) -> Sequence[Mapping[str, Any]]:
    """JSON patch (RFC 6902) of the list, that fails where it is not as it was read."""
    if "offline" in whole["spec"]:
        guard: Mapping[str, Any] = {"op": "test", "path": "/spec/offline", "value": list(entries)}
    else:
        guard = {"op": "test", "path": "/metadata/resourceVersion", "value": whole["metadata"]["resourceVersion"]}
    return (guard, {"op": "add", "path": "/spec/offline", "value": new})


def _overtaken(said: str) -> bool:
    """Whether a patch failed because the object changed after it was read."""
    words = said.lower()
    return "testing path" in words or "test failed" in words or "(conflict)" in words or "testing value" in words


def _explained(said: str) -> str:
    if "(Forbidden)" in said:
        return f"{said}\nTaking interfaces offline needs the verb patch on ipmpnodegroups of ipmp.dev."
    return said


def _entries(whole: Object) -> list[Object]:
    found: list[Object] = whole.get("spec", {}).get("offline") or []
    return found


def _with(entries: Sequence[Object], view: NodeView, interface: str) -> list[Object] | None:
    return None if _matching(entries, view, interface) else [*entries, {"interface": interface}]


def _without(entries: Sequence[Object], view: NodeView, interface: str) -> list[Object] | None:
    gone = _matching(entries, view, interface)
    return [each for each in entries if each not in gone] if gone else None


def _matching(entries: Sequence[Object], view: NodeView, interface: str) -> list[Object]:
    """The entries that mean an interface: by the name given, or by what the group calls the one of this name."""
    names = {interface, *_aliases(view, interface)}
    return [each for each in entries if each["interface"] in names]


def _aliases(view: NodeView, interface: str) -> set[str]:
    """What else the interface is called: the members are reported in the order of the spec."""
    keys, names = view.keys(), [str(each["name"]) for each in view.interfaces]
    if len(keys) != len(names) or not view.current:
        return set()
    return {other for pair in zip(keys, names, strict=True) if interface in pair for other in pair}


# -- the agent's side


class _RefusedError(Exception):
    """The agent will not; in its words."""


def _find(kubectl: Kubectl, options: argparse.Namespace) -> NodeView:
    """The one group of a node that has the interface."""
    whole = look(kubectl)
    there = whole.only([options.group] if options.group else [], [options.node]).nodes
    found = [each for each in there if options.interface in (*each.keys(), *(i["name"] for i in each.interfaces))]
    if not found:
        known = sorted({name for each in there for name in (*each.keys(), *(str(i["name"]) for i in each.interfaces))})
        where = f"group {options.group}" if options.group else "a group"
        raise PluginError(f"{options.interface} is not in {where} on {options.node}; there is: {', '.join(known)}")
    if len(found) > 1:
        names = ", ".join(each.group for each in found)
        raise PluginError(f"{options.interface} on {options.node} is in several groups ({names}): say which by --group")
    return found[0]


def _name(view: NodeView, interface: str) -> str:
    """What the agent calls an interface that may be given by its key."""
    names = {str(each["name"]) for each in view.interfaces}
    return next(iter(_aliases(view, interface) & names), interface) if interface not in names else interface


def _state(view: NodeView, name: str) -> str:
    return next((str(each["state"]) for each in view.interfaces if each["name"] == name), "unknown")


def _await_answer(kubectl: Kubectl, name: str, interface: str, timeout: float) -> NodeView:
    """Until the agent has done it. Raises _RefusedError with its words, and PluginError where it says nothing."""

    def answered(seen: NodeView) -> bool:
        member = _name(seen, interface)
        return seen.current and (_state(seen, member) == "offline" or _refusal(seen, interface) != "")

    view = _until(kubectl, name, answered, max(ANSWER, timeout))
    if words := _refusal(view, interface):
        raise _RefusedError(words)
    if not answered(view):
        raise PluginError(
            f"{interface} is in spec.offline of {name}, and the agent on {view.node} has not answered yet: is it "
            f"running? kubectl ipmp online {view.node} {interface} takes it back"
        )
    return view


def _refusal(view: NodeView, interface: str) -> str:
    """Why the agent keeps an interface in use, in its words; "" while it does not refuse this one."""
    honored = condition(view.whole, "OfflineHonored")
    if not view.current or honored.get("status") != "False" or _state(view, _name(view, interface)) == "offline":
        return ""
    if honored.get("observedGeneration", -1) < view.whole["metadata"].get("generation", 0):
        return ""
    words = str(honored.get("message", ""))
    names = {interface, *_aliases(view, interface)}
    mine = [part for part in words.split("; ") if part.partition(" ")[0] in names]
    return "; ".join(mine)


def _until(kubectl: Kubectl, name: str, holds: Callable[[NodeView], bool], timeout: float) -> NodeView:
    """Look until it holds, or time is over; returns what was seen last."""
    deadline = time.monotonic() + timeout
    while True:
        view = NodeView(kubectl.node_group(name))
        if holds(view) or time.monotonic() >= deadline:
            return view
        time.sleep(POLL)


def _count(addresses: Sequence[str]) -> str:
    if not addresses:
        return "no data address"
    return f"{len(addresses)} data address{'es' if len(addresses) > 1 else ''}: {', '.join(addresses)}"
