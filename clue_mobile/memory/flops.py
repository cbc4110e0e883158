"""FLOPs of matrix products and convolutions, 2 per multiply-add."""

from __future__ import annotations

from torch.fx import GraphModule, Node


def node_flops(node: Node) -> int:
    """One node's, by PyTorch's own formulas on the traced shapes; 0 for what is neither."""
    from torch.utils.flop_counter import flop_registry

    packet = getattr(node.target, "overloadpacket", None)
    if packet not in flop_registry or node.op != "call_function":
        return 0
    args = [a.meta["val"] if isinstance(a, Node) else a for a in node.args]
    return int(flop_registry[packet](*args, **node.kwargs, out_val=node.meta["val"]))


def count_flops(graph: GraphModule) -> int:
    """The whole graph's."""
    return sum(node_flops(node) for node in graph.graph.nodes)
