"""Batch norm by running statistics goes into the convolution in front of it, in both directions.

y = (conv(x, W) + b - mean) * s + beta, s = gamma / std, is conv(x, W s) + (b - mean) s + beta: no pass over
the activations, forward or backward, and the convolution's own result need not be kept for the backward pass.
What gamma's gradient takes from it, the sum of g * conv(x, W), is the product of W with the gradient of W s.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from clue_mobile.lowering.graft import Table, insert, replace_results

aten = torch.ops.aten

_FORWARD = aten._native_batch_norm_legit_no_training.default
_BACKWARD = aten.native_batch_norm_backward.default
_CONVOLUTION_BACKWARD = aten.convolution_backward.default


@dataclass(frozen=True)
class _Backward:
    """The two backward operators of one use, and the gradients that are wanted of each."""

    norm: Node
    convolution: Node
    wanted_norm: Any
    wanted_convolution: Any


def _backward(norm: Node, convolution: Node) -> _Backward | None:
    """The pair, where what is wanted can be had from the convolution's backward pass alone."""
    grads = {user.args[1]: user for user in norm.users if user.target is operator.getitem}
    grad: Any = grads.get(0)
    users = list(grad.users) if grad is not None else []
    if norm.args[7] or len(users) != 1 or users[0].target is not _CONVOLUTION_BACKWARD:  # args[7]: training
        return None
    (behind,) = users
    if (
        behind.args[0] is not grad
        or list(behind.args[1:3]) != list(convolution.args[:2])
        or grad in behind.args[1:]
    ):
        return None
    wanted_norm, wanted = norm.args[9], behind.args[10]
    if wanted_norm[1] and not wanted[1]:  # type: ignore[index]
        return None  # gamma's gradient would need one of the weights that nobody else asks for
    return _Backward(norm, behind, wanted_norm, wanted)


def _matches(norm: Node) -> tuple[Node, list[_Backward]] | None:
    """The convolution in front of a batch norm, and its backward passes, where nothing else reads it."""
    convolution: Any = norm.args[0]
    if convolution.target is not aten.convolution.default or convolution.args[6]:  # a transposed one
        return None
    for result in norm.users:
        if result.target is not operator.getitem:
            return None
        if result.args[1] != 0 and any(user.target is not _BACKWARD for user in result.users):
            return None  # the others are statistics, which only the backward pass is given
    backward = []
    for user in convolution.users:
        if user is norm:
            continue
        pair = None
        if user.target is _BACKWARD and [arg for arg in user.args if arg is convolution] == [user.args[1]]:
            pair = _backward(user, convolution)
        if pair is None:
            return None
        if list(user.args[2:5]) != [norm.args[1], *norm.args[3:5]]:
            return None  # of another layer that shares the convolution
        backward.append(pair)
    return convolution, backward


def into_convolutions(graph_module: GraphModule, table: Table) -> bool:
    """Rewrite each convolution with such a batch norm behind it; True where there was one."""
    found = False
    for norm in list(graph_module.graph.nodes):
        if norm.target is _FORWARD and (match := _matches(norm)):
            _rewrite(graph_module, norm, *match)
            found = True
    return found


def _rewrite(graph_module: GraphModule, norm: Node, convolution: Node, backward: list[_Backward]) -> None:
    arguments: Any = (norm.args, convolution.args)
    (_, gamma, beta, mean, var, _, eps), (x, weight, bias, *where) = arguments

    def folded(*tensors: Tensor) -> Any:
        """(W s, (b - mean) s + beta, s as rows of W, 1/std, b - mean)."""
        given = iter(tensors)
        w, m, v = next(given), next(given), next(given)
        g, b, shift = (next(given) if value is not None else None for value in (gamma, bias, beta))
        invstd = torch.rsqrt(v + eps)
        scale = invstd if g is None else invstd * g
        rows = scale.reshape(-1, *([1] * (w.dim() - 1)))
        centre = -m if b is None else b - m
        offset = centre * scale if shift is None else centre * scale + shift
        return w * rows, offset, rows, invstd, centre

    inputs: Any = [weight, mean, var, *(v for v in (gamma, bias, beta) if v is not None)]
    new_weight, offset, rows, invstd, centre = insert(graph_module, norm, folded, inputs)
    graph = graph_module.graph
    with graph.inserting_before(norm):
        new = graph.call_function(aten.convolution.default, (x, new_weight, offset, *where))
    new.meta["val"] = convolution.meta["val"]
    for pair in backward:
        _rewrite_backward(graph_module, pair, weight, [new_weight, rows, invstd, centre])
    replace_results(graph_module, norm, [new, None, None])
    graph.erase_node(convolution)


def _rewrite_backward(graph_module: GraphModule, pair: _Backward, weight: Any, folded: list[Node]) -> None:
    channels = weight.meta["val"].shape[0]
    where = pair.convolution.args[4:10]
    _, wants_gamma, wants_beta = pair.wanted_norm
    wants_x, wants_weight, wants_bias = pair.wanted_convolution
    wants_sum = bool(wants_gamma or wants_beta or wants_bias)

    def gradients(
        grad: Tensor, x: Tensor, w: Tensor, scaled: Tensor, rows: Tensor, invstd: Tensor, centre: Tensor
    ) -> Any:
        """Of (x, W, b, gamma, beta)."""
        wanted = [wants_x, wants_weight, wants_sum]
        grad_x, grad_scaled, total = aten.convolution_backward(grad, x, scaled, [channels], *where, wanted)
        grad_gamma = None
        if wants_gamma:
            along = (w * grad_scaled).reshape(channels, -1).sum(1)
            grad_gamma = (along + centre * total) * invstd
        return (
            grad_x if wants_x else None,
            grad_scaled * rows if wants_weight else None,
            total * rows.reshape(-1) if wants_bias else None,
            grad_gamma,
            total if wants_beta else None,
        )

    inputs: Any = [pair.norm.args[0], pair.convolution.args[1], weight, *folded]
    made = insert(graph_module, pair.norm, gradients, inputs)
    replace_results(graph_module, pair.convolution, made[:3])
    replace_results(graph_module, pair.norm, [None, *made[3:]])
