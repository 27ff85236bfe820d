"""What no mutated byte reaches is computed once in a process: torch's table of operators, and the export of a block.

The graph of a block hangs on the block alone. It is still compared with its module at every site of every file.
"""


def read_operators_once() -> None:
    """For all cases, as for all tests."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    from tests.fixtures.exporter import remembering

    ONNXRegistry.from_torchlib = remembering()


def export_blocks_once() -> None:
    """All surgeons on ONNX files share the exported kinds of blocks."""
    from sesurgery.surgeons.onnx import surgeon

    shared = surgeon.Blocks()
    surgeon.Blocks = lambda: shared
