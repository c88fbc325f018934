"""The machine's packages that the real Kubernetes and the image need; installed by an explicit step that says so."""

import os
import shutil
import subprocess

# Package, and what needs it.
PACKAGES = {
    "gcc": "runc's C part",
    "libc6-dev": "runc's C part",
    "pkg-config": "runc finds libseccomp with it",
    "libseccomp-dev": "runc's RuntimeDefault profiles",
    "iproute2": "network namespaces",
    "nftables": "faults at switch ports",
    "iptables": "host ports of pods, kube-proxy's iptables mode",
    "util-linux": "nsenter and unshare",
    "debootstrap": "the image's base from Debian's packages",
    "debian-archive-keyring": "debootstrap checks signatures with it",
    "buildah": "builds the image without a daemon",
}


def missing_packages() -> list[str]:
    """Names of the packages that are not installed."""
    query = ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n", *PACKAGES]
    listed = subprocess.run(query, capture_output=True, text=True, check=False).stdout
    present = {line.split()[0] for line in listed.splitlines() if line.endswith(" installed")}
    return [package for package in PACKAGES if package not in present]


def install_prerequisites() -> None:
    """Install what is missing with apt-get, and print what and why. Nothing to do when all is there."""
    if os.geteuid() != 0:
        raise RuntimeError("the cluster makes network namespaces and mounts: run as root")
    if not shutil.which("apt-get"):
        raise RuntimeError(f"no apt-get here: install what provides {', '.join(PACKAGES)} by hand")
    missing = missing_packages()
    if not missing:
        print("prerequisites: all there", flush=True)
        return
    for package in missing:
        print(f"prerequisites: installing {package}: {PACKAGES[package]}", flush=True)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], env=environment, check=True)
    install = ["apt-get", "install", "-qq", "-y", "--no-install-recommends", "-o", "Dpkg::Use-Pty=0", *missing]
    subprocess.run(install, env=environment, check=True, stdout=subprocess.DEVNULL)
