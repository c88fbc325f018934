"""Where built tools, images and the state of clusters live: outside the checkout, keyed by content."""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_directory() -> Path:
    """The project's cache: $IPMP_CACHE_DIR, else ipmp/ in $XDG_CACHE_HOME, else in ~/.cache."""
    if chosen := os.environ.get("IPMP_CACHE_DIR"):
        return Path(chosen).resolve()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "ipmp"


def content_hash(files: dict[str, Path], recipe: str) -> str:
    """Name a result by the content of the files it is made from and by the recipe that makes it."""
    digest = hashlib.sha256(recipe.encode())
    for name, path in sorted(files.items()):
        digest.update(f"\0{name}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file: two runs that need the same result build it once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another run that holds {path}", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
