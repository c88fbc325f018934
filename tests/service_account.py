"""A process as in a pod: it finds the account that a kubelet would have mounted, and no kubeconfig."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from pathlib import Path

_MOUNTED = """
account=/run/secrets/kubernetes.io/serviceaccount
mount -t tmpfs pod /run && mkdir -p $account && cp "$1/ca.crt" "$1/token" $account && cd / && shift && exec "$@"
"""
"""A mount namespace's own /run (/var/run is the same)."""


def in_pod(account: Path, server: str) -> list[str]:
    """The words before a command, the first of them its variables for env(1).

    Args:
        account: a directory with ca.crt and token.
        server: the URL of the API server.
    """
    parts = urlsplit(server)
    return [
        *("unshare", "--mount", "--propagation", "private", "sh", "-ec", _MOUNTED, "sh", str(account)),
        *("env", "--unset", "KUBECONFIG"),
        *(f"KUBERNETES_SERVICE_HOST={parts.hostname}", f"KUBERNETES_SERVICE_PORT={parts.port}"),
    ]
