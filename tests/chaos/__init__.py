"""Random faults from a seed, the invariants after every one, and the shortest history where one does not hold."""
