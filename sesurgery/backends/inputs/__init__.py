"""What goes into an engine: the ONNX file that it is built from, and the arrays that it is fed."""
