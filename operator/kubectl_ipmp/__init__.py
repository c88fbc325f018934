"""`kubectl ipmp`: what the cluster says of its IPMP groups, and the day after.

All of it goes through `kubectl`, which knows contexts, credential plugins and proxies. A command that only shows
something needs the right to get and list the two kinds.
"""

__version__ = "0.2.0"
