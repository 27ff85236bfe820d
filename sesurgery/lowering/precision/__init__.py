"""A graph in another precision: half types, int8, the ranges and the samples that decide."""
