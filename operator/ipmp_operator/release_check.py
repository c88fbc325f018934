"""What `helm test` runs: the API is served, the operator is available, and every wanted agent is ready.

    python3 -m ipmp_operator.release_check NAMESPACE NAME

waits for up to two minutes; NAME is what the release's objects begin with.
"""

import contextlib
import logging
import sys
import time

from ipmp_service.api_server import ApiError, ApiServer, access_from_environment
from ipmp_service.logs import Log

log = logging.getLogger(__name__)

DEADLINE = 120
"""Seconds."""


def problem(api: ApiServer, namespace: str, name: str) -> str:
    """What is not as it should be, or an empty string."""
    try:
        api.get("/apis/ipmp.dev/v1alpha1")
        deployment = api.get(f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}-operator")
    except ApiError as error:
        return str(error)
    conditions = {c["type"]: c["status"] for c in deployment.get("status", {}).get("conditions", ())}
    if conditions.get("Available") != "True":
        return f"Deployment {name}-operator is not available"
    try:
        agents = api.get(f"/apis/apps/v1/namespaces/{namespace}/daemonsets/{name}-agent")
    except ApiError as error:
        return "" if error.not_found else str(error)  # without a group there are no agents
    status = agents.get("status", {})
    ready, wanted = status.get("numberReady", 0), status.get("desiredNumberScheduled", 0)
    return "" if ready >= wanted else f"{ready} of {wanted} agents are ready"


def main(namespace: str, name: str) -> int:
    """Look until all is well (0) or the time is over (1)."""
    with contextlib.closing(Log("text", "info")):
        api = ApiServer(access_from_environment(), "ipmp-release-check")
        deadline = time.monotonic() + DEADLINE
        while said := problem(api, namespace, name):
            log.info("%s", said)
            if time.monotonic() > deadline:
                return 1
            time.sleep(2)
        log.info("the release works")
        return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
