"""The IPMP operator."""

__version__ = "0.1.0"
