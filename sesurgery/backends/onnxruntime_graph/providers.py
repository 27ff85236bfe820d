"""Who may compute, by ONNX Runtime's own names."""

from __future__ import annotations

CPU = "CPUExecutionProvider"
PROVIDERS = {
    "cpu": [CPU],
    "cuda": ["CUDAExecutionProvider", CPU],
    "tensorrt": ["TensorrtExecutionProvider", "CUDAExecutionProvider", CPU],
}
"""Whom to ask, in this order; the first must take part. The CPU has the few nodes that no GPU provider takes."""
PACKAGES = {"cpu": "onnxruntime", "cuda": "onnxruntime-gpu", "tensorrt": "onnxruntime-gpu, and TensorRT's libraries"}
