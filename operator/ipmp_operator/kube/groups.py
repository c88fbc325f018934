"""The cache of IPMPGroups: fed by kopf's events, replaced by a list now and then.

kopf tells nothing of a group that was deleted while its watch was down; the list does.
"""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING

from ipmp_api.compile import matches
from ipmp_api.types import API_GROUP, GROUP_PLURAL, LabelRequirement, LabelSelector
from ipmp_operator.kube.objects import API, GROUPS_PATH, GroupObject, read_group
from ipmp_service.api_server import ApiError

if TYPE_CHECKING:
    from ipmp_service.api_server import ApiServer, Object

EVERY = LabelSelector()


def parse_selector(text: str) -> LabelSelector:
    """Read `key=value` and `!key`, joined by commas. Raises ValueError."""
    labels: list[tuple[str, str]] = []
    absent: list[LabelRequirement] = []
    for part in text.split(","):
        key, equals, value = part.strip().partition("=")
        if equals and key and not key.startswith("!"):
            labels.append((key, value))
        elif not equals and len(key) > 1 and key.startswith("!"):
            absent.append(LabelRequirement(key[1:], "DoesNotExist"))
        else:
            raise ValueError(f"{part!r} is neither key=value nor !key")
    return LabelSelector(tuple(labels), tuple(absent))


class GroupCache:
    """The groups as last seen; safe to use from several threads.

    Args:
        selector: labels of the groups that are ours; all others count as absent, and what they have is left alone.
    """

    def __init__(self, selector: LabelSelector = EVERY) -> None:
        self._selector = selector
        self._lock = threading.Lock()
        self._groups: dict[str, GroupObject] = {}  # by name: a plan for two namesakes would be no plan
        self._versions: dict[str, int] = {}  # by uid: the newest resource version seen, also of deleted groups
        self._listed = False

    @property
    def synced(self) -> bool:
        """Whether a list was read: until then, absence means nothing."""
        return self._listed

    def snapshot(self) -> list[GroupObject]:
        """All groups."""
        with self._lock:
            return list(self._groups.values())

    def get(self, name: str) -> GroupObject | None:
        """One group."""
        with self._lock:
            return self._groups.get(name)

    def observe(self, kind: str | None, obj: Object) -> bool:
        """Take in an event; whether anything changed. `kind` is None for an object from a first list."""
        with self._lock:
            return self._take(obj, deleted=kind == "DELETED")

    def refresh(self, api: ApiServer) -> bool:
        """Replace the cache by what there is; whether anything changed. Raises ApiError."""
        objects, version = _list(api)
        there = {obj["metadata"]["uid"] for obj in objects}
        with self._lock:
            changed = not self._listed
            for obj in objects:
                changed |= self._take(obj, deleted=False)
            # A group that is newer than the list was created, or deleted, after it was read: its event is ahead.
            for uid in [uid for uid, seen in self._versions.items() if uid not in there and seen <= version]:
                del self._versions[uid]
                changed |= self._drop(uid)
            self._listed = True
            return changed

    def _take(self, obj: Object, *, deleted: bool) -> bool:
        metadata = obj["metadata"]
        name, uid, version = metadata["name"], metadata["uid"], int(metadata["resourceVersion"])
        if version <= self._versions.get(uid, -1):
            return False  # a list and a watch overtake each other
        self._versions[uid] = version
        old = self._groups.get(name)
        if old is not None and old.uid != uid and version < self._versions[old.uid]:
            return False  # the event is of a namesake that went before this one came
        ours = not deleted and matches(self._selector, metadata.get("labels") or {})
        new = read_group(obj) if ours else None
        if new is None:
            return self._drop(uid)
        self._groups[name] = new
        return new != old

    def _drop(self, uid: str) -> bool:
        names = [group.name for group in self._groups.values() if group.uid == uid]
        for name in names:
            del self._groups[name]
        return bool(names)


def groups_are_served(api: ApiServer) -> bool:
    """Whether the API server knows the kind of the groups. Raises ApiError, also for an answer that does not say."""
    if API_GROUP not in _names(api.get("/apis"), "APIGroupList", "groups"):
        return False
    return GROUP_PLURAL in _names(api.get(f"/apis/{API}"), "APIResourceList", "resources")


def _names(answer: Object, kind: str, part: str) -> set[str]:
    listed = answer.get(part)
    if answer["kind"] != kind or not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise ApiError(0, "AnswerBroken", f"no {kind} came")
    return {str(one.get("name")) for one in listed}


def _list(api: ApiServer) -> tuple[list[Object], float]:
    """All groups and the resource version of the list: none, as of infinity, where their kind itself was deleted."""
    try:
        objects, version = api.list_all(GROUPS_PATH, {})
    except ApiError as error:
        # Whatever stands between may say "not found" as well. Believed, it would take every group from every node.
        if error.not_found and not groups_are_served(api):
            return [], math.inf
        raise
    return objects, int(version)
