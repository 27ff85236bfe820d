"""Converting a graph to fp16, bf16 or int8, and the ranges and samples that this needs."""
