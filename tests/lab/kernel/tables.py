"""The table of podEgress in the hands of somebody else."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.lab import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab import Lab

TABLE = "ipmp-data"


def tables(lab: Lab) -> str:
    """The rules of the host, as nft prints them."""
    return str(lab.host.namespace.run("nft", "list", "ruleset"))


@contextmanager
def owned_table(lab: Lab) -> Iterator[None]:
    """A table of the same name that another process owns: the kernel refuses it to everybody else, with EPERM."""
    argv = ["nft", "-i"]
    owner = lab.host.namespace.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    try:
        assert owner.stdin is not None
        owner.stdin.write(f"add table inet {TABLE} {{ flags owner; }}\n".encode())
        owner.stdin.flush()
        wait_for(lambda: tables(lab), lambda seen: TABLE in seen)
        yield
    finally:
        owner.kill()
        owner.communicate(timeout=10)
    wait_for(lambda: tables(lab), lambda seen: "flags owner" not in seen)
