"""A registry with the cluster's certificates, where its nodes and its admin reach it: Debian's docker-registry."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.cluster.network import CONTROL_ADDRESS
from tests.cluster.pki import CertificateAuthority

if TYPE_CHECKING:
    from tests.cluster.cluster import Cluster

ADDRESS = f"{CONTROL_ADDRESS}:5000"
NAME = "registry"


def start_registry(cluster: Cluster) -> str:
    """Start a registry beside the API server; it ends with the cluster. Returns its HOST:PORT."""
    pki = cluster.directory / "pki"
    CertificateAuthority(pki).issue(NAME, NAME, alternative_names=(CONTROL_ADDRESS,))
    config = {
        "version": "0.1",
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(cluster.directory / NAME)}},
        "http": {"addr": ADDRESS, "tls": {"certificate": f"{pki}/{NAME}.crt", "key": f"{pki}/{NAME}.key"}},
    }
    path = cluster.directory / "registry.yml"
    path.write_text(json.dumps(config), encoding="utf-8")
    cluster.processes.spawn(NAME, cluster.control.namespace.name, "docker-registry", "serve", path)
    return ADDRESS
