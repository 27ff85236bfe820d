"""A toolkit for ONNX graphs: files, external data, opsets, shapes, scopes, dataflow, numerics."""
