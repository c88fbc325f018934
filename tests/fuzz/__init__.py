"""Every parser of bytes that come from somewhere else, given bytes that nobody meant: see docs/testing.md."""
