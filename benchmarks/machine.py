"""The machine that figures are of."""

import os
import platform


def described() -> str:
    """Kernel, Python, cores, and the load at this moment, in one line."""
    return (
        f"Linux {platform.release()}, Python {platform.python_version()}, {os.cpu_count()} cores,"
        f" load {os.getloadavg()[0]:.2f}"
    )
