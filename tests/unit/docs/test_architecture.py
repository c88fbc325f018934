"""ARCHITECTURE.md is what the tree says."""

from __future__ import annotations

import ast
import asyncio
import re
import tomllib
from functools import cache
from typing import TYPE_CHECKING

import pytest

from ipmp_agent.core.events import LinkChanged
from tests.unit.agent.building import Rig, unprobed_group
from tests.unit.docs.pages import ROOT
from tests.unit.docs.walks import PAGE, called, names, not_reached, rows, section, walk
from tests.unit.operator.build import World, api_group, nodes, pool, pools
from tests.virtual_node import VirtualNode, numbered_group

if TYPE_CHECKING:
    from pathlib import Path

PACKAGES = tuple(sorted({path.parent for path in ROOT.glob("*/*ipmp*/__init__.py")}))
SHORT = tuple(package for package in PACKAGES if package.name in {"ipmp_agent", "ipmp_operator"})
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
LAYERS = [
    (container, each["layers"]) for each in CONTRACTS if each["type"] == "layers" for container in each["containers"]
]
LETTERS = re.compile(r"[^\w ]")


def resolve(path: str) -> Path:
    """The file or folder that a path of the page means: from the root, the agent's package or the operator's."""
    found = [base / path for base in (ROOT, *SHORT) if (base / path).exists()]
    assert found, f"there is no {path}"
    return found[0]


@cache
def defined(path: Path) -> frozenset[str]:
    """The functions and classes of a file; methods, properties and attributes as `Class.name`."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            found.add(node.name)
            parts = {each.name for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}
            stored = (each for each in ast.walk(node) if isinstance(each, ast.Attribute | ast.Name))
            parts |= {ast.unparse(each).removeprefix("self.") for each in stored if isinstance(each.ctx, ast.Store)}
            found |= {f"{node.name}.{part}" for part in parts}
    return frozenset(found)


@cache
def defined_anywhere() -> frozenset[str]:
    """The same of all packages."""
    return frozenset().union(*(defined(path) for package in PACKAGES for path in package.rglob("*.py")))


# -- folders and floors -----------------------------------------------------------------------------------------------


def test_every_folder_is_named() -> None:
    named = {row[0].strip("`").rstrip("/") for row in rows("Folders")}
    hidden = {"build", "dist", "__pycache__"}
    top = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")} - hidden
    rooms = {str(path.parent.relative_to(ROOT)) for package in PACKAGES for path in package.rglob("__init__.py")}
    assert sorted(top | rooms) == sorted(named)


@pytest.mark.parametrize(("container", "layers"), LAYERS, ids=[container for container, _ in LAYERS])
def test_every_floor_is_as_in_the_contract(container: str, layers: list[str]) -> None:
    blocks = [
        block.strip().splitlines() for block in re.findall(r"^```\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
    ]
    assert [[line.strip() for line in block[1:]] for block in blocks if block[0] == container] == [layers]


def test_no_floor_is_named_that_is_in_no_contract() -> None:
    assert sorted(re.findall(r"^```\n([\w.]+)$", PAGE, flags=re.MULTILINE)) == sorted(name for name, _ in LAYERS)


# -- threads ----------------------------------------------------------------------------------------------------------


STARTERS = {"threading.Thread": 1, "Thread": 1, "kept": 1, "CarrierPoll": 0}
"""What begins a thread, and which of its arguments is the name."""


def _started() -> set[str]:
    """The names that threads are started with, without what is computed in them."""
    found = set()
    for package in PACKAGES:
        for path in package.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                place = STARTERS.get(ast.unparse(node.func)) if isinstance(node, ast.Call) else None
                if isinstance(node, ast.Call) and place is not None:
                    given = [k.value for k in node.keywords if k.arg == "name"] or node.args[place : place + 1]
                    text = given[0] if given else None
                    if isinstance(text, ast.JoinedStr):
                        text = text.values[0]
                    if isinstance(text, ast.Constant):
                        found.add(str(text.value).strip())
    return found


def test_every_thread_is_named() -> None:
    """A thread of the product has a name, and that name stands in the page."""
    threads = section("Of an agent") + section("Of an operator")
    assert len(_started()) >= 9
    assert sorted(name for name in _started() if f"`{name}`" not in threads) == []


def test_no_thread_is_named_that_nobody_starts() -> None:
    named = {
        word
        for title in ("Of an agent", "Of an operator")
        for row in rows(title)
        for word in re.findall(r"`([\w-]+)`", row[0])
    }
    assert sorted(named - _started()) == []


def test_as_many_threads_stand_in_an_agent_as_the_page_says() -> None:
    numbers = ("Seven", "Eight", "Nine", "Ten", "Eleven", "Twelve")
    assert section("Of an agent").strip().startswith(f"{numbers[len(rows('Of an agent')) - 7]} stand")


# -- functions, files and words ---------------------------------------------------------------------------------------

STEPS = [
    *(row[1:3] for title in ("Of an agent", "Of an operator") for row in rows(title)),
    *(row[:2] for title in ("A pulled cable", "A probe's reply") for row in rows(title)),
    *(row[:2] for row in rows("An IPMPGroup, from apply to the kernel and back")),
]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: names(step[0])[0])
def test_every_step_is_a_function_of_its_file(step: list[str]) -> None:
    function, file = names(step[0])[0], step[1].strip("`")
    assert function in defined(resolve(file))


LONG = 60.0
"""Seconds after which a walk has ended somewhere else."""


def test_a_pulled_cable_goes_the_way_of_the_page_in_one_thread() -> None:
    async def scenario() -> list[str]:
        rig = Rig()
        await rig.apply(unprobed_group(standby=["nic1"], interfaces=("nic0", "nic1")))
        with called() as calls:
            rig.plane.hear(lambda: rig.plane.sink("lab", LinkChanged("nic0", up=False)))
        return calls

    steps = walk("A pulled cable", "dataplane/", "core/")
    assert len(steps) > 10
    assert not_reached(steps, asyncio.run(asyncio.wait_for(scenario(), LONG))) == []


def test_a_reply_goes_the_way_of_the_page() -> None:
    node = VirtualNode(numbered_group())
    node.start()
    node.run(10)
    node.silence("nic0")
    with called() as calls:
        assert node.run(10, until=lambda: node.held_by("nic0") == [])
    steps = walk("A probe's reply", "core/")
    assert len(steps) > 5
    assert not_reached(steps, calls) == []


def test_a_group_goes_the_way_of_the_page() -> None:
    title = "An IPMPGroup, from apply to the kernel and back"
    world = World([api_group(dataAddresses=pools(pool()))])
    world.add_nodes(nodes(2))
    with called() as calls:
        world.step()
    steps = walk(title, "core/allocate", "crds/ipmp_api/compile", "core/rollup")
    assert len(steps) == 3
    assert not_reached(["plan", *steps], calls) == []

    async def scenario() -> list[str]:
        rig = Rig(trials=True)
        with called() as calls:
            rig.configurator.want([unprobed_group(targets=["198.18.0.1"])])
            at_work = asyncio.ensure_future(rig.configurator.run())
            await rig.configurator.applied.wait()
        at_work.cancel()
        await asyncio.gather(at_work, return_exceptions=True)
        return calls

    steps = walk(title, "dataplane/")
    assert len(steps) > 3
    assert not_reached(steps, asyncio.run(asyncio.wait_for(scenario(), LONG))) == []


def test_every_method_that_is_mentioned_exists() -> None:
    classes = {name for name in defined_anywhere() if "." not in name}
    mentioned = {name for name in re.findall(r"`(\w+\.\w+)(?:\(\))?`", PAGE) if name.split(".")[0] in classes}
    assert len(mentioned) > 30
    assert sorted(mentioned - defined_anywhere()) == []


def test_every_path_exists() -> None:
    paths = set(re.findall(r"`([\w.-]+(?:/[\w.-]+)+/?|[\w-]+\.(?:py|md|yaml|toml))`", PAGE))
    assert len(paths) > 40
    doubles = {"fake_kernel.py", "virtual_node.py"}
    assert sorted(path for path in paths - doubles if not _exists(path)) == []


def _exists(path: str) -> bool:
    return any((base / path).exists() for base in (ROOT, *SHORT, *PACKAGES))


@pytest.mark.parametrize("row", rows("Words"), ids=lambda row: row[0])
def test_every_word_occurs_in_its_file(row: list[str]) -> None:
    """A word that the code no longer uses needs no explanation."""
    words, text = LETTERS.sub("", row[0]).split(" "), resolve(row[2].strip("`")).read_text(encoding="utf-8").lower()
    assert [word for word in words if word.lower() not in text] == []


def test_readme_sends_developers_here_first() -> None:
    reading = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Reading on")[2]
    assert re.findall(r"\]\(([^)]+)\)", reading)[0] == "ARCHITECTURE.md"
