"""How ONNX Runtime on the CPU gets an engine in which a gate's scaling costs no change of layout."""
