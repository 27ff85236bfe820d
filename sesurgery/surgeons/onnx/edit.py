"""Editing an ONNX graph with onnx-graphsurgeon, and restoring everything that graphsurgeon drops.

graphsurgeon keeps the wiring and drops the rest: metadata, doc strings, the model's version, attribute types it does
not know, weights that nobody reads. So it decides only who reads what. What is written is the original model with the
original nodes, weights and descriptions; a node's inputs and outputs are set again, blocks are added, and what was
taken out is left out. An edit that changes nothing gives back an equal model.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

import onnx
import onnx_graphsurgeon as gs
from onnx import NodeProto, StringStringEntryProto
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

from sesurgery.diagnostics import fail, first_line
from sesurgery.onnxgraph import scopes as onnx_scopes
from sesurgery.onnxgraph.layout import TO_FIRST, TO_LAST
from sesurgery.onnxgraph.nodes import captured, unique
from sesurgery.surgeons.onnx.view import Place

# From this IR version on a weight need not be listed among the inputs.
_FREE_WEIGHTS = 4


class GraphEditor:
    """A graph while it is being changed; the model it was made from stays untouched."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        try:
            self.graph = gs.import_onnx(model)
        except Exception as error:
            text = f"onnx-graphsurgeon cannot read the ONNX file: {first_line(error)}"
            raise fail("SE602", text, "report this file") from error
        self.nodes = list(self.graph.nodes)
        self.tensors = dict(self.graph.tensors())
        # What each node is written from: its own original, or the block's.
        self._written_from = dict(zip(map(id, self.nodes), model.graph.node, strict=True))
        self._originals = frozenset(self._written_from)
        self._captured = {name for node in model.graph.node for name in captured(node)}
        self._names = {*self.tensors, *(node.name for node in self.nodes)}
        self._fresh: list[gs.Constant] = []
        # New nodes by what they stand behind (None: in front of everything), the latest nearest.
        self._behind: dict[int | None, list[list[gs.Node]]] = defaultdict(list)
        self._dead: set[int] = set()
        self._ends = {id(tensor) for tensor in (*self.graph.inputs, *self.graph.outputs)}

    def left(self, name: str) -> bool:
        """Whether a value of the original is still made or given."""
        return name in self.tensors and self._kept(self.tensors[name])

    def names(self) -> set[str]:
        """Every name that is in use now."""
        kept = {name for name, tensor in self.tensors.items() if self._kept(tensor)}
        return kept | {node.name for node in self._all()} | {tensor.name for tensor in self._fresh}

    def reads(self, place: Place) -> bool:
        """Whether the node of a place is still there: one that only a removed block needed is not."""
        return place.node < 0 or id(self.nodes[place.node]) not in self._dead

    def read_at(self, place: Place) -> str:
        """The value that is read at a place now."""
        node = self.nodes[place.node] if place.node >= 0 else None
        tensor = node.inputs[place.slot] if node is not None else self.graph.outputs[place.slot]
        return str(tensor.name)

    def remove(self, output: str, value: str, name: str, dequantised: Iterable[str] = ()) -> None:
        """Let all readers of `output` read `value`, and take out what only `output` needed.

        `dequantised` are values that are `output` once quantised: their readers read `value` too.
        """
        source = self.tensors[value]
        for one in (output, *dequantised):
            if one in self._captured:
                raise _not_rerouted(name, f"{one} is read inside a subgraph, and subgraphs are left alone")
            gone = self.tensors[one]
            quantised = dequantised if one == output else ()
            kept = {id(self.tensors[copy].inputs[0].inputs[0].inputs[0]) for copy in quantised}
            for reader in list(gone.outputs):
                for slot, tensor in enumerate(reader.inputs):
                    if tensor is gone and id(reader) not in kept:
                        reader.inputs[slot] = source
        for one in (*dequantised, output):
            self._retire(self.tensors[one], source, name)

    def _retire(self, gone: gs.Tensor, source: gs.Tensor, name: str) -> None:
        (maker,) = gone.inputs
        if any(tensor is gone for tensor in self.graph.outputs):
            # The network's output keeps its name.
            maker.outputs.clear()
            passed = gs.Node("Identity", self._unique(f"{name}/Identity"), inputs=[source], outputs=[gone])
            self._place([passed], source)
            self._written_from[id(passed)] = NodeProto(op_type="Identity", name=passed.name)
        self._bury(maker)

    def splice(
        self, block: onnx.ModelProto, value: str, module: str, parameters: set[str], *, last: bool = False
    ) -> gs.Variable:
        """Add a block's graph that reads `value`, under the module's name; the result is its output, read by nobody.

        With `last` the value keeps its channels last, and so does the result.
        """
        part, source = gs.import_onnx(block), self.tensors[value]
        templates = dict(zip(map(id, part.nodes), block.graph.node, strict=True))
        start, end = part.inputs[0], part.outputs[0]
        for tensor in part.tensors().values():
            own = f"{module}.{tensor.name}" if tensor.name in parameters else f"{module}/{tensor.name}"
            tensor.name = self._unique(f"{module}/output" if tensor is end else own)
            if isinstance(tensor, gs.Constant):
                self._fresh.append(tensor)
        nodes = list(part.nodes)
        if last:
            source, turn, nodes, end = self._turned(source, module, nodes, end)
        else:
            turn = source
        for node in nodes:
            template = NodeProto()
            template.CopyFrom(templates.get(id(node)) or _turning(node))
            node.name = self._unique(f"{module}/{node.name or node.op}")
            _rescope(template, module, node.name)
            self._written_from[id(node)] = template
            for slot, tensor in enumerate(node.inputs):
                if tensor is start:
                    node.inputs[slot] = turn
        self._place(nodes, source)
        return end

    def _turned(
        self, source: gs.Tensor, module: str, nodes: list[gs.Node], end: gs.Variable
    ) -> tuple[gs.Tensor, gs.Tensor, list[gs.Node], gs.Variable]:
        """The block's nodes with a Transpose on either side, for a map that keeps its channels last."""
        first = gs.Variable(self._unique(f"{module}/turned"))
        back = gs.Variable(end.name)
        end.name = self._unique(f"{module}/inner")
        before = gs.Node("Transpose", "Transpose", {"perm": list(TO_FIRST)}, [source], [first])
        after = gs.Node("Transpose", "Transpose", {"perm": list(TO_LAST)}, [end], [back])
        return source, first, [before, *nodes, after], back

    def reroute(self, place: Place, new: gs.Variable, what: str) -> None:
        """Let one reading read another value; an output of the graph keeps its name."""
        if place.node >= 0:
            self.nodes[place.node].inputs[place.slot] = new
            return
        old = self.graph.outputs[place.slot]
        if old.name in self._captured or any(tensor is old for tensor in self.graph.inputs):
            raise _not_rerouted(what, f"the output {old.name} is read inside a subgraph, or is an input as well")
        name = old.name
        old.name, new.name = self._unique(f"{new.name.rpartition('/')[0]}/input"), name
        self.graph.outputs[place.slot] = new
        if not old.outputs and old.inputs and id(old.inputs[0]) not in self._originals:
            # The Identity that kept this output's name is not needed any more.
            self._ends.discard(id(old))
            self._bury(old.inputs[0])
        self._ends.add(id(new))

    def result(self) -> onnx.ModelProto:
        """The changed model."""
        done = onnx.ModelProto()
        done.CopyFrom(self.model)
        graph = done.graph
        del graph.node[:]
        for node in self._all():
            written = graph.node.add()
            written.CopyFrom(self._written_from[id(node)])
            # A name that is not there is another thing than an empty one.
            if written.name != node.name:
                written.name = node.name
            written.input[:] = [tensor.name for tensor in node.inputs]
            written.output[:] = [tensor.name for tensor in node.outputs]
        unread = _read(self.model.graph) - _read(graph)
        orphans = {tensor.name for tensor in graph.initializer if tensor.name in unread}
        made = {name for node in graph.node for name in node.output}
        known = {value.name for value in graph.input} | made
        lost = {name for node in self.model.graph.node for name in node.output} - known
        _without(graph.initializer, orphans)
        _without(graph.input, orphans)
        _without(graph.value_info, orphans | lost)
        graph.initializer.extend(_written(tensor) for tensor in self._fresh)
        if done.ir_version < _FREE_WEIGHTS:
            # In such files a weight is an input with a value.
            graph.input.extend(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
                for tensor in graph.initializer[len(graph.initializer) - len(self._fresh) :]
            )
        return done

    def _all(self) -> Iterator[gs.Node]:
        """Every node that is there now, in topological order."""
        stack = [iter(self.nodes)]
        waiting = [node for group in reversed(self._behind[None]) for node in group]
        stack.append(iter(waiting))
        while stack:
            node = next(stack[-1], None)
            if node is None:
                stack.pop()
                continue
            if id(node) not in self._dead:
                yield node
            if id(node) in self._behind:
                stack.append(iter([inner for group in reversed(self._behind[id(node)]) for inner in group]))

    def _place(self, nodes: list[gs.Node], source: gs.Tensor) -> None:
        """Put nodes directly behind what makes their source, so that the order stays topological."""
        self._behind[id(source.inputs[0]) if source.inputs else None].append(nodes)

    def _bury(self, node: gs.Node) -> None:
        """Remove a node that is not read, and then everything else that is not read."""
        pending = [node]
        while pending:
            dead = pending.pop()
            if id(dead) in self._dead or any(tensor.outputs or id(tensor) in self._ends for tensor in dead.outputs):
                continue
            # What a subgraph reads it reads by name.
            if any(tensor.name in self._captured for tensor in dead.outputs):
                continue
            self._dead.add(id(dead))
            above = [tensor.inputs[0] for tensor in dead.inputs if tensor.inputs]
            dead.inputs.clear()
            pending += above

    def _kept(self, tensor: gs.Tensor) -> bool:
        if id(tensor) in self._ends:
            return True
        if isinstance(tensor, gs.Constant):
            return bool(tensor.outputs)
        return bool(tensor.inputs) and id(tensor.inputs[0]) not in self._dead

    def _unique(self, name: str) -> str:
        return unique(name, self._names)


def _rescope(node: NodeProto, module: str, name: str) -> None:
    """Set the module path of a block's node within the whole network."""
    inside = onnx_scopes.of_metadata(node)
    parts = (f"{module}.{inside}" if inside else module).split(".")
    paths = ["", *(".".join(parts[: depth + 1]) for depth in range(len(parts)))]
    del node.metadata_props[:]
    node.doc_string = ""
    leaf = name.rpartition("/")[2]
    node.metadata_props.append(StringStringEntryProto(key=onnx_scopes.NAME_SCOPES, value=str([*paths, leaf])))


def _turning(node: gs.Node) -> NodeProto:
    perm = onnx.helper.make_attribute("perm", node.attrs["perm"])
    return NodeProto(op_type=node.op, attribute=[perm])


def _written(tensor: gs.Constant) -> onnx.TensorProto:
    written: onnx.TensorProto = OnnxExporter.export_tensor_proto(tensor)
    return written


def _read(graph: onnx.GraphProto) -> set[str]:
    names = {name for node in graph.node for name in (*node.input, *captured(node))}
    return names | {value.name for value in graph.output}


def _without(listed: object, names: set[str]) -> None:
    kept = [item for item in listed if item.name not in names]  # type: ignore[attr-defined]
    if len(kept) < len(listed):  # type: ignore[arg-type]
        del listed[:]  # type: ignore[attr-defined]
        listed.extend(kept)  # type: ignore[attr-defined]


def _not_rerouted(what: str, why: str) -> Exception:
    return fail("SE403", f"{what}: {why}", "turn this site down with 'within', 'except' or 'stages'")
