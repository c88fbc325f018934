"""Debian packages that the ladders need: `python -m tests.prerequisites LADDER...` installs what is missing."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
from pathlib import Path

LADDERS = {
    "demo": {
        "iproute2": "network namespaces",
        "nftables": "faults at switch ports",
        "util-linux": "nsenter and unshare",
    },
    "lab": {
        "iproute2": "network namespaces",
        "nftables": "faults at switch ports",
        "iptables": "rules that masquerade, as kube-proxy and CNIs lay them",
        "iputils-arping": "asks who has an address, as a neighbour does",
        "util-linux": "nsenter and unshare",
        "systemd": "networkd, another owner of interfaces",
        "systemd-container": "boots a whole machine in the network of a host",
        "debootstrap": "the root of that machine, from Debian's packages",
        "network-manager": "another owner of interfaces",
        "keepalived": "another owner of addresses",
        "dbus": "both are spoken to on a bus of their own",
        "user-mode-linux": "another kernel than the running one, as a process",
        "debian-archive-keyring": "signs the packages of other suites, whose daemons are run beside the agent",
        "kmod": "loads that kernel's modules",
        "frr": "zebra and staticd, which lay routes",
        "bird2": "another routing daemon",
        "radvd": "a router that advertises itself",
        "prometheus": "scrapes the agent; its promtool tests the alerts",
        "prometheus-alertmanager": "sends the alerts to a receiver",
        "chromium": "looks at the pages of reports",
        "fonts-dejavu-core": "what it writes with",
        "zsh": "completes the plugin's words",
        "fish": "completes the plugin's words",
    },
    "cluster": {
        "gcc": "runc's C part",
        "libc6-dev": "runc's C part",
        "pkg-config": "runc finds libseccomp with it",
        "libseccomp-dev": "runc's RuntimeDefault profiles",
        "iptables": "host ports of pods, kube-proxy's iptables mode",
        "debootstrap": "the image's base from Debian's packages",
        "debian-archive-keyring": "debootstrap checks signatures with it",
        "buildah": "builds the image without a daemon",
        "skopeo": "pushes the image to a registry",
        "docker-registry": "the registry that the product is installed from",
        "lua5.1": "runs the health script for Argo CD",
    },
    "release": {
        "qemu-user-static": "runs programs of another architecture, for its image",
    },
    "site": {
        "chromium": "looks at the site",
        "fonts-dejavu-core": "what it writes with",
    },
    "pythons": {
        "debian-archive-keyring": "signs the packages of other suites, which have the Pythons",
    },
    "drivers": {
        "debian-archive-keyring": "signs the packages of other suites, which have QEMU and the guest's kernel",
        "kmod": "tells which modules a module needs",
        "util-linux": "ends QEMU with its caller",
    },
    "bench": {
        "keepalived": "the peer that failover is measured against",
        "frr": "its bfdd is the peer that probing is measured against",
        "libteam-utils": "teamd, a peer that outages are measured against",
    },
}


UNITS = Path("/etc/systemd/system")
SERVICES = {
    "bird2": "bird",
    "docker-registry": "docker-registry",
    "frr": "frr",
    "keepalived": "keepalived",
    "lldpd": "lldpd",
    "network-manager": "NetworkManager",
    "prometheus": "prometheus",
    "prometheus-alertmanager": "prometheus-alertmanager",
    "radvd": "radvd",
}
"""Units that a package would start on this machine, and that the lab runs by itself."""

ELSEWHERE_ABSENT = {"user-mode-linux"} if platform.machine() not in {"x86_64", "i686"} else set()
"""Packages that Debian has for x86 alone."""


def missing_packages(wanted: dict[str, str]) -> list[str]:
    """Those of `wanted` that are not installed."""
    query = ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n", *wanted]
    listed = subprocess.run(query, capture_output=True, text=True, check=False).stdout
    present = ELSEWHERE_ABSENT | {line.split()[0] for line in listed.splitlines() if line.endswith(" installed")}
    return [package for package in wanted if package not in present]


def mask(service: str) -> None:
    """Keep a unit from being started when its package is installed: this machine's own network is not the lab's."""
    unit = UNITS / f"{service}.service"
    if not unit.is_symlink() and not unit.exists():
        UNITS.mkdir(parents=True, exist_ok=True)
        unit.symlink_to("/dev/null")


def install(wanted: dict[str, str]) -> None:
    """Install what is missing. Raises SystemExit with what to do where that cannot be done here."""
    if os.geteuid() != 0:
        raise SystemExit("network namespaces and mounts are made here: run as root")
    if not shutil.which("apt-get"):
        raise SystemExit(f"no apt-get here: install what provides {', '.join(wanted)} by hand")
    missing = missing_packages(wanted)
    if not missing:
        return
    for package in missing:
        print(f"installing {package}: {wanted[package]}", flush=True)
    for package in SERVICES.keys() & set(missing):
        mask(SERVICES[package])
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], env=environment, check=True)
    command = ["apt-get", "install", "-qq", "-y", "--no-install-recommends", "-o", "Dpkg::Use-Pty=0", *missing]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    """Install the packages of the ladders named."""
    parser = argparse.ArgumentParser(prog="python -m tests.prerequisites", description=__doc__)
    parser.add_argument("ladders", nargs="+", choices=LADDERS)
    ladders = parser.parse_args().ladders
    install({package: reason for ladder in ladders for package, reason in LADDERS[ladder].items()})


if __name__ == "__main__":
    main()
