"""What to do: the pure core. Time is an argument; nothing here reads a clock, a socket or a file."""
