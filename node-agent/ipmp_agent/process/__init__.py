"""The agent as a process: its threads, its control socket, its manifests in files."""
