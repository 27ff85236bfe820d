"""The passes on a network's graph, one file per pass, named like the ONNX pass that it corresponds to."""
