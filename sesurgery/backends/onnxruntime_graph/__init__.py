"""How an engine of ONNX Runtime is built and run, and how on the CPU a gate's scaling costs no change of layout."""
