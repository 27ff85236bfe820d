"""The surgeon of ONNX files: blocks become nodes of the graph."""
