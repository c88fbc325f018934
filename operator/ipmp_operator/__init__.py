"""The IPMP operator."""

__version__ = "0.2.0"
