"""What no mutated byte reaches is computed once in a process: torch's table of operators, and the export of a block.

The graph of a block hangs on the block alone. It is still compared with its module at every site of every file.
"""

import copy


def read_operators_once() -> None:
    """Each export gets a copy of one table of operators, whose translations onnxscript parses from their sources."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    read, known = ONNXRegistry.from_torchlib.__func__, {}

    def from_torchlib(cls, **named):
        key = tuple(named.items())
        if key not in known:
            known[key] = read(cls, **named)
        made = copy.copy(known[key])
        made.functions = {target: list(listed) for target, listed in made.functions.items()}
        return made

    ONNXRegistry.from_torchlib = classmethod(from_torchlib)


def export_blocks_once() -> None:
    """All surgeons on ONNX files share the exported kinds of blocks."""
    from sesurgery.surgeons.onnx import surgeon

    shared = surgeon.Blocks()
    surgeon.Blocks = lambda: shared
