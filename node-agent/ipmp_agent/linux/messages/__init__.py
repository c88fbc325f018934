"""Bytes and values: what the kernel and the wire say, and what is said to them; nothing here decides."""
