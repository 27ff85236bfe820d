"""What a runner calls of pycuda 2026.1, with its names and arguments, on whatever libcuda there is."""
