"""A compiled network as a table of fusions, as lines of kernels, and as data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sesurgery.backends.kernels.compiled import Compiled, Kernel
from sesurgery.backends.kernels.operators import Graph, Operator
from sesurgery.tables import aligned


@dataclass(frozen=True)
class CompiledReport:
    """What was compiled, how, and the result; `scopes` has the module of each ONNX node where it is known."""

    name: str
    how: str
    compiled: Compiled
    scopes: Mapping[str, str]

    def modules(self, kernel: Kernel) -> tuple[str, ...]:
        """The modules whose operations a kernel carries out, each once."""
        return tuple(dict.fromkeys(self.scopes[node] for node in kernel.nodes if node in self.scopes))


@dataclass(frozen=True)
class OperatorReport:
    """What a processor's engine runs, and how that came about; `scopes` as above."""

    name: str
    how: str
    graphs: tuple[Graph, ...]
    scopes: Mapping[str, str]

    def modules(self, operator: Operator) -> tuple[str, ...]:
        """The modules whose operations an operator carries out, each once."""
        return tuple(dict.fromkeys(self.scopes[node] for node in operator.nodes if node in self.scopes))


def to_json(report: CompiledReport | OperatorReport) -> dict[str, object]:
    """Plain data: totals, fusions by how often, and every kernel with its nodes and the modules they are of."""
    if isinstance(report, OperatorReport):
        return {"name": report.name, "how": report.how, "graphs": [_graph(report, graph) for graph in report.graphs]}
    compiled = report.compiled
    return {
        "name": report.name,
        "how": report.how,
        "batch": compiled.batch,
        "kernels": len(compiled.kernels),
        "activation_bytes": compiled.traffic,
        "fusions": compiled.fusions,
        "layers": [
            {
                "name": kernel.name,
                "kind": kernel.kind,
                "fused": kernel.fused,
                "bytes": compiled.moved(kernel),
                "types": sorted({tensor.dtype for tensor in kernel.outputs}),
                "nodes": list(kernel.nodes),
                "modules": list(report.modules(kernel)),
            }
            for kernel in compiled.kernels
        ],
    }


def to_text(report: CompiledReport | OperatorReport, *, every: bool = False) -> str:
    """The fusions with how often and how much they move; with `every`, every kernel in the order they run."""
    if isinstance(report, OperatorReport):
        return "\n".join([f"{report.name}: {report.how}", *_graphs(report, every=every)])
    return "\n".join([*_summary(report), "", *(_kernels(report) if every else _fusions(report.compiled))])


def _summary(report: CompiledReport) -> Iterator[str]:
    compiled = report.compiled
    yield f"{report.name}: {report.how}"
    moved = f"{_mega(compiled.traffic)} MB of activations read and written"
    yield f"{len(compiled.kernels)} kernels, {moved} at batch {compiled.batch}"


def _fusions(compiled: Compiled) -> Iterator[str]:
    moved: dict[str, int] = {}
    for kernel in compiled.kernels:
        moved[kernel.fused] = moved.get(kernel.fused, 0) + compiled.moved(kernel)
    counts = compiled.fusions
    rows = [(name, str(counts[name]), _mega(moved[name])) for name in sorted(moved, key=lambda name: -moved[name])]
    yield from aligned([("kernel", "count", "MB"), *rows])


def _kernels(report: CompiledReport) -> Iterator[str]:
    for kernel in report.compiled.kernels:
        of = ", ".join(report.modules(kernel) or kernel.nodes)
        types = "/".join(sorted({tensor.dtype for tensor in kernel.outputs}))
        yield f"{_mega(report.compiled.moved(kernel)):>9} MB  {types:8}  {kernel.fused}{f'  {of}' if of else ''}"


def _mega(count: int) -> str:
    return f"{count / 1e6:.2f}"


def _graph(report: OperatorReport, graph: Graph) -> dict[str, object]:
    return {
        "name": graph.name,
        "when": graph.when,
        "kernels": len(graph.operators),
        "convolutions": graph.convolutions,
        "kinds": graph.kinds,
        "layers": [
            {
                "name": operator.name,
                "kind": operator.kind,
                "type": operator.type,
                "nodes": list(operator.nodes),
                "modules": list(report.modules(operator)),
            }
            for operator in graph.operators
        ],
    }


def _graphs(report: OperatorReport, *, every: bool) -> Iterator[str]:
    for graph in report.graphs:
        convolutions = ", ".join(f"{count} in {kind}" for kind, count in graph.convolutions.items()) or "none"
        title = f"{graph.name}, {graph.when}: " if graph.when else ""
        yield ""
        yield f"{title}{len(graph.operators)} kernels; convolutions: {convolutions}"
        if every:
            for operator in graph.operators:
                of = ", ".join(report.modules(operator) or operator.nodes)
                yield f"{operator.type or '':5} {operator.kind}{f'  {of}' if of else ''}"
        else:
            yield from aligned([("kernel", "count"), *((kind, str(count)) for kind, count in graph.kinds.items())])
