"""What TensorRT and TensorRT-RTX share, which is nearly everything: their Python modules have one API."""
