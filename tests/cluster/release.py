"""What people install from, in one directory: image, chart, manifests, wheel, packages, SBOM, sums. `make release`."""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from kubectl_ipmp import single_file
from tests.cluster.build import build
from tests.cluster.debian import build_package, dependencies, version
from tests.cluster.emulation import MACHINES, NATIVE
from tests.cluster.image import CHECKOUT, RELEASED, Contents, build_release, join
from tests.cluster.product import CHART, NAMESPACE, RELEASE

if TYPE_CHECKING:
    from collections.abc import Sequence

POD_SECURITY = "pod-security.kubernetes.io"
KUSTOMIZATION = """\
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [install.yaml]
images:
  - name: {repository}
    newName: {repository}
    newTag: {version}
# The agents' DaemonSet is text that the operator applies: its image is the operator's.
replacements:
  - source:
      {{kind: Deployment, name: {release}-operator, fieldPath: "spec.template.spec.containers.[name=operator].image"}}
    targets:
      - select: {{kind: Deployment, name: {release}-operator}}
        fieldPaths: ["spec.template.spec.containers.[name=operator].env.[name=AGENT_IMAGE].value"]
"""


def manifests(helm: Path) -> list[dict[str, Any]]:
    """The chart as plain manifests: the namespace first, no test pod, definitions not kept when deleted."""
    image = f"{RELEASED}:{version()}"
    values = {
        "crds": {"keep": False},
        "operator": {
            "extraArgs": ["--agent-image=$(AGENT_IMAGE)"],
            "extraEnv": [{"name": "AGENT_IMAGE", "value": image}],
        },
    }
    place = ("--namespace", NAMESPACE, "--skip-tests", "--kube-version", "1.32.0", "--values", "-")
    text = _run(str(helm), "template", RELEASE, str(CHART), *place, text=json.dumps(values))
    parts = [part for part in yaml.safe_load_all(text) if part]
    for part in parts:
        labels = part["metadata"].get("labels", {})
        labels.pop("helm.sh/chart", None)
        if "app.kubernetes.io/managed-by" in labels:
            labels["app.kubernetes.io/managed-by"] = "manifests"
    levels = {f"{POD_SECURITY}/{mode}": "privileged" for mode in ("enforce", "audit", "warn")}
    return [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": levels}}, *parts]


def write_manifests(helm: Path, directory: Path) -> None:
    """Write install.yaml and, beside it, a kustomization that names the image in one place."""
    text = yaml.safe_dump_all(manifests(helm), sort_keys=False, width=1000)
    (directory / "install.yaml").write_text(text, encoding="utf-8")
    kustomization = KUSTOMIZATION.format(repository=RELEASED, version=version(), release=RELEASE)
    (directory / "kustomization.yaml").write_text(kustomization, encoding="utf-8")


def spdx(contents: Contents, name: str, created: str) -> dict[str, Any]:
    """The image's packages as an SPDX 2.3 document.

    Args:
        name: of the image, with its tag.
        created: the time of the commit, as RFC 3339 in UTC.
    """
    listed = [
        *(
            (package, release, "", f"pkg:deb/debian/{package}@{release}?arch={arch}")
            for package, release, arch in contents.debian
        ),
        *(
            (package, release, text, f"pkg:pypi/{package.lower()}@{release}")
            for package, release, text in contents.python
        ),
    ]
    packages = [
        {
            "SPDXID": f"SPDXRef-Package-{number}",
            "name": package,
            "versionInfo": release,
            "downloadLocation": "NOASSERTION",
            "filesAnalyzed": False,
            "licenseConcluded": "NOASSERTION",
            "licenseDeclared": declared or "NOASSERTION",
            "copyrightText": "NOASSERTION",
            "externalRefs": [
                {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": locator}
            ],
        }
        for number, (package, release, declared, locator) in enumerate(listed, 1)
    ]
    image = packages[0] | {"SPDXID": "SPDXRef-Image", "name": name, "versionInfo": name.rpartition(":")[2]}
    image |= {"licenseDeclared": "Apache-2.0", "primaryPackagePurpose": "CONTAINER"}
    del image["externalRefs"]
    related = [("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-Image")]
    related += [("SPDXRef-Image", "CONTAINS", str(package["SPDXID"])) for package in packages]
    return _document(name, created, [image, *packages], related)


def spdx_of_package(created: str) -> dict[str, Any]:
    """The Debian package, which has our code alone, and what it depends on, as an SPDX 2.3 document."""
    empty = {"downloadLocation": "NOASSERTION", "filesAnalyzed": False, "copyrightText": "NOASSERTION"}
    empty |= {"licenseConcluded": "NOASSERTION", "licenseDeclared": "NOASSERTION"}
    own = empty | {"SPDXID": "SPDXRef-Package", "name": "ipmp-agent", "versionInfo": version()}
    needed = [
        empty | {"SPDXID": f"SPDXRef-Package-{number}", "name": name} for number, name in enumerate(dependencies(), 1)
    ]
    related = [("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-Package")]
    related += [("SPDXRef-Package", "DEPENDS_ON", str(one["SPDXID"])) for one in needed]
    whole = [own | {"licenseDeclared": "Apache-2.0", "primaryPackagePurpose": "INSTALL"}, *needed]
    return _document(f"ipmp-agent_{version()}_all.deb", created, whole, related)


def _document(
    name: str, created: str, packages: list[dict[str, Any]], related: list[tuple[str, str, str]]
) -> dict[str, Any]:
    content = hashlib.sha256(json.dumps(packages).encode()).hexdigest()
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": f"https://ipmp.dev/spdx/{content}",
        "creationInfo": {"created": created, "creators": ["Tool: ipmp-release"]},
        "packages": packages,
        "relationships": [
            {"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other}
            for one, kind, other in related
        ],
    }


def release(directory: Path, architectures: Sequence[str], *, twice: bool = False) -> None:
    """Make the directory's content anew.

    Args:
        architectures: of the image, as OCI names them.
        twice: build the image twice from nothing, and fail where the two hold different packages.
    """
    tools = build()
    directory.mkdir(parents=True, exist_ok=True)
    revision, seconds = _run("git", "log", "-1", "--format=%H %ct").split()
    created = datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    changed = "-dirty" if _run("git", "status", "--porcelain", "--untracked-files=no").strip() else ""
    labels = {
        "org.opencontainers.image.version": version(),
        "org.opencontainers.image.revision": revision + changed,
        "org.opencontainers.image.created": created,
    }
    if source := _run("git", "config", "--default", "", "--get", "remote.origin.url").strip():
        labels["org.opencontainers.image.source"] = source
    archives = []
    for architecture in architectures:
        stem = f"ipmp-{version()}-{architecture}"
        archives.append(directory / f"{stem}.tar")
        contents = build_image_of(architecture, labels, archives[-1], twice=twice)
        write_sbom(contents, directory / f"{stem}.spdx.json", created)
    write_index(archives, directory)
    write_packages(tools / "helm", directory)
    package = build_package(directory)
    if twice:
        with tempfile.TemporaryDirectory() as other:
            if build_package(Path(other)).read_bytes() != package.read_bytes():
                raise SystemExit(f"two builds of {package.name} differ")
        print(f"two builds of {package.name} are equal", flush=True)
    text = json.dumps(spdx_of_package(created), indent=1)
    package.with_suffix(".spdx.json").write_text(text + "\n", encoding="utf-8")
    for path in write_sums(directory):
        print(f"{path.stat().st_size:>10}  {path}")


def build_image_of(architecture: str, labels: dict[str, str], archive: Path, *, twice: bool) -> Contents:
    """Build the image of an architecture into an archive; returns what is in it.

    Raises:
        SystemExit: it was to be built twice, and the two hold different packages.
    """
    print(f"building {archive}", flush=True)
    contents = build_release(version(), labels, archive, fresh=twice, architecture=architecture)
    if twice:
        print("building it once more", flush=True)
        with tempfile.TemporaryDirectory() as other:
            copy = Path(other) / archive.name
            again = build_release(version(), labels, copy, fresh=True, architecture=architecture)
        if again != contents:
            different = {*contents.debian, *contents.python} ^ {*again.debian, *again.python}
            raise SystemExit(f"two builds for {architecture} hold different packages: {sorted(different)}")
        print(f"two builds hold the same {len(contents.debian) + len(contents.python)} packages", flush=True)
    return contents


def write_index(archives: Sequence[Path], directory: Path) -> None:
    """Write the archive that has the image for every architecture, which is the one to push."""
    join(archives, f"{RELEASED}:{version()}", directory / f"ipmp-{version()}.tar")


def write_sbom(contents: Contents, path: Path, created: str) -> None:
    """Write the image's SPDX document."""
    document = json.dumps(spdx(contents, f"{RELEASED}:{version()}", created), indent=1)
    path.write_text(document + "\n", encoding="utf-8")


def write_packages(helm: Path, directory: Path) -> None:
    """Write chart, plain manifests, wheel and plugin."""
    _run(str(helm), "package", str(CHART), "--destination", str(directory))
    write_manifests(helm, directory)
    wheel = (
        "wheel",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--wheel-dir",
        str(directory),
        str(CHECKOUT),
    )
    _run(sys.executable, "-m", "pip", *wheel)
    single_file.build(directory)


def write_sums(directory: Path) -> list[Path]:
    """Write the checksums of all files that there are; returns these."""
    files = sorted(path for path in directory.iterdir() if path.name != "SHA256SUMS")
    sums = "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files)
    (directory / "SHA256SUMS").write_text(sums, encoding="utf-8")
    return files


def _run(*command: str, text: str | None = None) -> str:
    done = subprocess.run(command, cwd=CHECKOUT, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def main() -> None:
    """Make a release."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.release", description=__doc__)
    parser.add_argument("directory", type=Path, help="where to leave the files")
    parser.add_argument(
        "--architectures",
        nargs="+",
        choices=MACHINES,
        default=[NATIVE],
        metavar="ARCH",
        help=f"of the image ({' '.join(MACHINES)}; this machine's by default); another than its own is emulated",
    )
    parser.add_argument("--twice", action="store_true", help="see that two builds hold the same packages")
    options = parser.parse_args()
    release(options.directory.resolve(), options.architectures, twice=options.twice)


if __name__ == "__main__":
    main()
