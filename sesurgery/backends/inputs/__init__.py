"""Inputs of engines: the ONNX file one is built from, and the arrays it is fed."""
