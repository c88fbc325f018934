"""The thread that works: the loop, the groups that run in it, and how their configuration changes."""
