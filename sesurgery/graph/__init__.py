"""The neutral graph and what can be found in it."""

from sesurgery.graph.view import ConvFacts, GraphView, Node, NodeFacts, Op, Shape, Use, is_one_pixel

__all__ = ["ConvFacts", "GraphView", "Node", "NodeFacts", "Op", "Shape", "Use", "is_one_pixel"]
