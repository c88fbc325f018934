"""The agent in a guest of QEMU, on the drivers of real NICs."""
