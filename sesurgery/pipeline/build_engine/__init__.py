"""The verb `build-engine`: from an ONNX file or a run to an engine with its manifest.

`build_engine` is the verb and `request` what is asked of it. `building` makes one engine, `choose` tries every backend
and keeps the fastest; `lowered` and `calibration` make the file that a backend is given, `from_network` the network.
"""
