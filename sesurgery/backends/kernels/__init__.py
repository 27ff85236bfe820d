"""What an engine consists of, as plain data: kernels of a compiler, or operators of an optimised graph."""
