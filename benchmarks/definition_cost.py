"""What a write of the definitions costs the API server: `python benchmarks/definition_cost.py [--against REVISION]`.

Each definition is written with --dry-run=server, in turn with that of another revision of this repository, on a real
API server. Counted is the CPU of its process, for wall times say little on a busy machine. The other kind of this
project, with a definition of its own size, is the yardstick beside it.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.cluster.cluster import Cluster
from tests.cluster.cost import writes

ROOT = Path(__file__).resolve().parents[1]
GROUPS, NODE_GROUPS = "crds/ipmpgroups.ipmp.dev.yaml", "crds/ipmpnodegroups.ipmp.dev.yaml"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", default="d1861ef", metavar="REVISION", help="(default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="writes of each definition (default: %(default)s)")
    chosen = parser.parse_args()
    show = ["git", "-C", str(ROOT), "show", f"{chosen.against}:{GROUPS}"]
    texts = {
        "IPMPGroup, here": (ROOT / GROUPS).read_text(encoding="utf-8"),
        f"IPMPGroup, {chosen.against}": subprocess.run(show, capture_output=True, text=True, check=True).stdout,
        "IPMPNodeGroup, here": (ROOT / NODE_GROUPS).read_text(encoding="utf-8"),
    }
    cluster = Cluster()
    try:
        cluster.up()
        costs = {name: statistics.median(writes(cluster, text, chosen.rounds)) for name, text in texts.items()}
    finally:
        cluster.remove()
    print(f"{'definition':24} {'bytes':>8} {'CPU s':>8}")
    for name, text in texts.items():
        print(f"{name:24} {len(text.encode()):>8} {costs[name]:>8.2f}")
    here, there, _ = costs.values()
    print(f"ratio {here / there:.2f} (goal: at most 0.10)")


if __name__ == "__main__":
    main()
