"""Plan, allocate, roll up: pure functions of groups, nodes and node groups."""
