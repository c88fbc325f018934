"""One of each for every group: what it wants of the kernel, and the requests that bring it there; see `feature`."""
