"""What a kernel does in one pass becomes one operator.

Statistics behind a convolution; residual and clamp (ReLU, ReLU6) behind a norm, and their backward in front
of the norm's; the optimizer's step.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import torch
from torch.fx import GraphModule, Node

from clue_mobile.lowering.kernels.again import again
from clue_mobile.lowering.kernels.forms import UNCLAMPED
from clue_mobile.lowering.kernels.layout import TO_LAST, put, sink

aten, clue = torch.ops.aten, torch.ops.clue


def fuse(graph_module: GraphModule) -> GraphModule:
    """Run every pass of this folder over a lowered graph, in place."""
    sink(graph_module)
    for each in (
        pixels,
        statistics,
        residual,
        results,
        activation,
        masked,
        recomputed,
        summed,
        updated,
        again,
    ):
        each(graph_module)
        graph_module.graph.eliminate_dead_code()
    graph_module.graph.lint()
    graph_module.recompile()
    return graph_module


def _nodes(graph_module: GraphModule, target: Any) -> list[Node]:
    return [node for node in graph_module.graph.nodes if node.target is target]


def _only_user(node: Node, target: Any) -> Node | None:
    users = list(node.users)
    return users[0] if len(users) == 1 and users[0].target is target else None


def _replace_parts(graph_module: GraphModule, old: Node, new: Node, shift: int = 0) -> None:
    """Readers of the parts of `old` read those of `new`, `shift` further on."""
    graph = graph_module.graph
    for part in list(old.users):
        assert part.target is operator.getitem
        args: Any = part.args
        part.args = (new, int(args[1]) + shift)
    graph.erase_node(old)


def pixels(graph_module: GraphModule) -> None:
    """(x - mean) / std and the conversion of x [N, C, H, W] -> image(x, mean, std)."""
    graph = graph_module.graph
    for change in _nodes(graph_module, aten.permute.default):
        div: Any = change.args[0]
        sub: Any = div.args[0] if _is(div, aten.div.Tensor) else None
        order: Any = change.args[1]
        if list(order) != TO_LAST or not _is(sub, aten.sub.Tensor):
            continue
        x, mean = sub.args
        std = div.args[1]
        if (
            x.op == "placeholder"
            and all(_is_per_channel(n, x) for n in (mean, std))
            and not (sub.kwargs or div.kwargs)
        ):
            with graph.inserting_before(change):
                change.replace_all_uses_with(put(graph, clue.image.default, (x, mean, std)))
            graph.erase_node(change)


def _is_per_channel(node: Any, x: Node) -> bool:
    return isinstance(node, Node) and list(node.meta["val"].shape) == [1, x.meta["val"].shape[1], 1, 1]


def statistics(graph_module: GraphModule) -> None:
    """stats(conv(x)) -> conv_stats(x): the convolution's result is still in the cache."""
    graph = graph_module.graph
    for conv in _nodes(graph_module, clue.conv.default):
        stats = [user for user in conv.users if user.target is clue.stats.default]
        if not stats:
            continue
        with graph.inserting_before(conv):
            both = put(graph, clue.conv_stats.default, conv.args)
            y = graph.call_function(operator.getitem, (both, 0))
            y.meta["val"] = conv.meta["val"]
        for each in stats:
            _replace_parts(graph_module, each, both, 1)
        conv.replace_all_uses_with(y)
        graph.erase_node(conv)


def residual(graph_module: GraphModule) -> None:
    """norm(x) + r -> norm(x, r)."""
    graph = graph_module.graph
    for norm in _nodes(graph_module, clue.norm.default):
        add = _only_user(norm, aten.add.Tensor)
        if add is None or add.kwargs.get("alpha", 1) != 1 or len(add.all_input_nodes) != 2:
            continue
        (other,) = (n for n in add.all_input_nodes if n is not norm)
        if other.meta["val"].shape != norm.meta["val"].shape or _clamps(norm):
            continue
        with graph.inserting_before(add):
            made = put(graph, clue.norm.default, (*norm.args[:5], other, *UNCLAMPED))
        add.replace_all_uses_with(made)
        graph.erase_node(add)
        graph.erase_node(norm)


def _clamps(norm: Node) -> bool:
    return norm.args[6:] != UNCLAMPED


def _limits(node: Node) -> tuple[float, float] | None:
    """What ReLU or a clamp keeps its argument between."""
    if node.target is aten.relu.default:
        return 0.0, math.inf
    if node.target is aten.clamp.default:
        limits: dict[str, Any] = {**dict(zip(("min", "max"), node.args[1:], strict=False)), **node.kwargs}
        low, high = limits.get("min"), limits.get("max")
        return -math.inf if low is None else float(low), math.inf if high is None else float(high)
    return None


def results(graph_module: GraphModule) -> None:
    """clamp_grad(g, x) -> clamp_grad(g, clamp(x)), the same mask, so that x itself need not be kept."""
    for mask in _nodes(graph_module, clue.clamp_grad.default):
        args: Any = mask.args
        _, x, *limits = args
        for user in x.users:
            if _limits(user) == tuple(limits) and user < mask:
                mask.args = (args[0], user, *limits)
                break


def activation(graph_module: GraphModule) -> None:
    """clamp(norm(x)) -> norm(x, limits)."""
    graph = graph_module.graph
    for norm in _nodes(graph_module, clue.norm.default):
        (user,) = norm.users if len(norm.users) == 1 else (norm,)
        limits = _limits(user)
        if limits is not None and not _clamps(norm):
            with graph.inserting_before(user):
                made = put(graph, clue.norm.default, (*norm.args[:6], *limits))
            user.replace_all_uses_with(made)
            graph.erase_node(user)
            graph.erase_node(norm)


def masked(graph_module: GraphModule) -> None:
    """norm_grad(clamp_grad(g, out)) -> norm_grad(g, out).

    Other readers of the masked gradient take its fourth part.
    """
    graph = graph_module.graph
    place = {node: number for number, node in enumerate(graph.nodes)}
    for mask in _nodes(graph_module, clue.clamp_grad.default):
        readers = [u for u in mask.users if u.target is clue.norm_grad.default and u.args[0] is mask]
        # where the mask stood, so that it is in front of every reader
        early = [
            u for u in readers if all(place[n] < place[mask] for n in u.all_input_nodes if n is not mask)
        ]
        if not early:
            continue
        grad, out, *limits = mask.args
        reader = early[0]
        with graph.inserting_before(mask):
            made = put(
                graph, clue.norm_grad.default, (grad, *reader.args[1:6], out, None, reader.args[8], *limits)
            )
            kept = graph.call_function(operator.getitem, (made, 3))
            kept.meta["val"] = mask.meta["val"]
        place[made] = place[kept] = place[mask]
        _replace_parts(graph_module, reader, made)
        mask.replace_all_uses_with(kept)
        graph.erase_node(mask)


def recomputed(graph_module: GraphModule) -> None:
    """norm_grad(g, x, out=norm(x)) -> norm_grad(g, x, bias): x is read anyway, and says what the mask is."""
    for grad in _nodes(graph_module, clue.norm_grad.default):
        args, out = list(grad.args), grad.args[6]
        if not isinstance(out, Node) or out.target is not clue.norm.default:
            continue
        x, mean, invstd, weight, bias, residual, *limits = out.args
        if [x, mean, invstd, weight] == args[1:5] and residual is None and limits == args[9:]:
            args[5:7] = [bias, None]
            grad.args = tuple(args)


def summed(graph_module: GraphModule) -> None:
    """norm_grad(a + b) -> norm_grad(a, more=b) where nothing else reads the sum."""
    graph = graph_module.graph
    for grad in _nodes(graph_module, clue.norm_grad.default):
        add: Any = grad.args[0]
        if (
            add.target is not aten.add.Tensor
            or len(add.users) > 1
            or add.kwargs.get("alpha", 1) != 1
            or len(add.all_input_nodes) != 2
            or any(n.meta["val"].shape != add.meta["val"].shape for n in add.all_input_nodes)
        ):
            continue
        left, right = add.args
        grad.args = (left, *grad.args[1:7], right, *grad.args[8:])
        graph.erase_node(add)


def updated(graph_module: GraphModule) -> None:
    """v' = momentum v + g, or g mask; w' = w - lr v' -> sgd(w, v, lr, mask, g), without anything in between.

    Where g is joined of pieces, of these.
    """
    graph = graph_module.graph
    for end in _nodes(graph_module, aten.sub.Tensor):
        both_sides: Any = end.args
        w, change = both_sides
        if end.kwargs or not _is_product(change) or len(change.users) > 1:
            continue
        lr, moved = change.args
        if not isinstance(lr, Node) or lr.meta["val"].dim() or not _is(moved, aten.add.Tensor):
            continue
        kept, g = moved.args
        if moved.kwargs or not _is_product(kept) or not isinstance(kept.args[1], float):
            continue
        if not isinstance(g, Node):
            continue
        v, momentum = kept.args
        factors: Any = g.args if _is_product(g) and len(g.users) == 1 else (g, None)
        if not isinstance(factors[1], Node):
            factors = (g, None)
        g, mask = factors
        vectors = [n for n in (w, v, g, mask) if n is not None]
        if w.meta["val"].dim() != 1 or any(n.meta["val"].shape != w.meta["val"].shape for n in vectors):
            continue
        joined = g.target is aten.cat.default and len(g.users) == 1
        with graph.inserting_before(moved if lr < moved else end):
            both = put(graph, clue.sgd.default, (w, v, lr, mask, g.args[0] if joined else [g], momentum))
            for index, old in enumerate((end, moved)):
                made = graph.call_function(operator.getitem, (both, index))
                made.meta["val"] = old.meta["val"]
                old.replace_all_uses_with(made, delete_user_cb=lambda user, change=change: user is not change)
        graph.erase_node(end)


def _is(node: Any, target: Any) -> bool:
    return isinstance(node, Node) and node.target is target


def _is_product(node: Any) -> bool:
    return _is(node, aten.mul.Tensor)
