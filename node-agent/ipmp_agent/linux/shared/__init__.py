"""One of each for a network namespace: sockets, tables and readers that all groups share; knows no group."""
