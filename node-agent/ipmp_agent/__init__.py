"""The IPMP node agent."""

__version__ = "0.2.0"
