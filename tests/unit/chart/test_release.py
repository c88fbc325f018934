"""What a release is made of: requirements by hash, one version, an SBOM of every package."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.cluster.image import Contents
from tests.cluster.release import spdx

ROOT = Path(__file__).resolve().parents[3]
REQUIREMENTS = (ROOT / "image-requirements.txt").read_text(encoding="utf-8")
PINNED = re.compile(r"^(\S+?)==(\S+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.MULTILINE)


def test_every_package_of_the_image_is_pinned_by_hashes() -> None:
    assert PINNED.sub("", REQUIREMENTS) == "", "lines that pin nothing: make requirements"


def test_pinned_packages_are_what_the_project_asks_for() -> None:
    pinned = {canonicalize_name(name): version for name, version, _ in PINNED.findall(REQUIREMENTS)}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [
        *project["dependencies"],
        *(one for extra in ("agent", "operator") for one in project["optional-dependencies"][extra]),
    ]
    for requirement in map(Requirement, asked):
        version = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} is {version}: make requirements"


def test_sbom_has_every_package_once_and_relates_each_to_the_image() -> None:
    contents = Contents((("libc6", "2.41-12", "amd64"),), (("PyYAML", "6.0.2", "MIT"), ("kopf", "1.45.2", "")))
    document = spdx(contents, "ipmp:1.2.3", "2026-01-02T03:04:05Z")
    assert {p["name"]: p["licenseDeclared"] for p in document["packages"]} == {
        "ipmp:1.2.3": "Apache-2.0",
        "libc6": "NOASSERTION",
        "PyYAML": "MIT",
        "kopf": "NOASSERTION",
    }
    located = [ref["referenceLocator"] for p in document["packages"] for ref in p.get("externalRefs", ())]
    assert located == ["pkg:deb/debian/libc6@2.41-12?arch=amd64", "pkg:pypi/pyyaml@6.0.2", "pkg:pypi/kopf@1.45.2"]
    names = {p["SPDXID"] for p in document["packages"]}
    assert len(names) == len(document["packages"])
    contained = {r["relatedSpdxElement"] for r in document["relationships"] if r["relationshipType"] == "CONTAINS"}
    assert contained == names - {"SPDXRef-Image"}
