"""The passes on a network's graph: one file a pass, named as the ONNX pass that it is the counterpart of."""
