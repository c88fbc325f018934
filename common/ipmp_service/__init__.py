"""What any process of ours needs beside its own work: the API server, health pages, a log, a command line.

Nothing here knows what the processes are for. Rooms of this package use those above them in this list, never below:
backoff, threads, command, logs, metrics; http and api_server; reflector and events.
"""
