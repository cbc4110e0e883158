"""`lower` as a whole: layers of matrix products, complete models, refusals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from lowering_case import Apply, assert_close, assert_forward_only, check, draw, examples, operators
from torch import Tensor, nn

from clue_mobile import programs
from clue_mobile.errors import ClueError
from clue_mobile.flat import FlatModel
from clue_mobile.lowering import lower
from clue_mobile.methods import clue
from clue_mobile.models import BUILTIN, load
from clue_mobile.plan import Program

# layers


@examples(max_examples=15)
@given(
    outer=st.lists(st.integers(1, 3), min_size=0, max_size=3),
    sizes=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    bias=st.booleans(),
)
def test_linear(outer: list[int], sizes: tuple[int, int], bias: bool) -> None:
    check(nn.Linear(*sizes, bias=bias), *outer, sizes[0])


def test_linear_is_two_more_products_and_two_transposes() -> None:
    found = operators(check(nn.Linear(4, 5), 3, 4))
    assert (found["addmm"], found["mm"], found["permute"]) == (1, 2, 2)


@pytest.mark.parametrize("causal", [False, True])
@examples(max_examples=8)
@given(shape=st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)))
def test_fused_attention(causal: bool, shape: tuple[int, ...]) -> None:
    def attend(x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x, x.sin(), x.cos(), is_causal=causal)

    graph = check(Apply(attend), *shape)
    assert operators(graph)["_softmax"] == 1


@examples(max_examples=8)
@given(
    tokens=st.integers(1, 4),
    heads=st.integers(1, 3),
    head=st.integers(1, 3),
    first=st.booleans(),
    bias=st.booleans(),
)
def test_multi_head_attention(tokens: int, heads: int, head: int, first: bool, bias: bool) -> None:
    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(heads * head, heads, bias=bias, batch_first=first)

        def forward(self, x: Tensor) -> Tensor:
            return self.attention(x, x, x, need_weights=False)[0]

    check(Layer(), 2, tokens, heads * head)


def test_attention_by_hand() -> None:
    def attend(x: Tensor) -> Tensor:
        q, k, v = x.reshape(2, 5, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        return (F.softmax(q @ k.transpose(-2, -1) / 2, -1) @ v).transpose(1, 2).reshape(2, 5, 8)

    check(Apply(attend), 2, 5, 24)


def test_encoder_layer_whose_dropout_is_off() -> None:
    check(nn.TransformerEncoderLayer(8, 2, 12, dropout=0.5, activation="gelu", batch_first=True), 2, 5, 8)


def test_gradient_with_respect_to_one_tensor_twice_given() -> None:
    def function(a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        leaf = a.detach().clone().requires_grad_()
        return torch.autograd.grad((leaf * leaf * b).sum(), [leaf])

    same = draw(3)
    graph = lower(function, [same, same])  # two inputs all the same
    assert_close(graph(draw(3), draw(3, seed=1)), function(draw(3), draw(3, seed=1)))


def test_custom_autograd_function() -> None:
    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            return 3 * ctx.saved_tensors[0] * grad  # not the true one, so that the test sees whose is used

    check(Apply(Square.apply), 2, 3)


def test_overrides_replace_an_operator_for_one_runtime() -> None:
    def by_comparison(grad: Tensor, x: Tensor, threshold: float) -> Tensor:
        return grad * (x > threshold).to(grad.dtype)

    def function(x: Tensor) -> tuple[Tensor, ...]:
        leaf = x.detach().clone().requires_grad_()
        return torch.autograd.grad(F.relu(leaf).sum(), [leaf])

    graph = lower(function, [draw(5)], overrides={torch.ops.aten.threshold_backward.default: by_comparison})
    assert operators(graph)["gt"] == 1
    assert operators(graph)["sign"] == 0


# whole models


def spec_and_model(name: str, size: int) -> FlatModel:
    spec = BUILTIN[name].spec
    spec = replace(spec, input_shape=(spec.input_shape[0], size, size))
    return FlatModel(load(spec, None, seed=1).double(), spec)


def inputs_of(model: FlatModel, program: Program) -> list[Tensor]:
    """The model's own state (running statistics at random), other inputs by their role."""
    state = model.pack()
    if "buffers" in state:
        state["buffers"] = draw(model.sizes["buffers"], seed=9) ** 2 + 0.1
    values = {"lr": torch.tensor(0.01), "tau": torch.tensor(1e-3)}
    tensors = []
    for seed, port in enumerate(program.inputs):
        if port.role == "state":
            tensors.append(state[port.name])
        elif port.role == "scalar":
            tensors.append(values[port.name].double())
        elif port.name == "mask":
            tensors.append((draw(*port.shape, seed=seed) > 0).double())
        else:
            tensors.append(draw(*port.shape, seed=seed))
    return tensors


def check_program(model: FlatModel, program: Program) -> programs.Traced:
    traced = programs.trace(program, dtype=torch.float64)
    assert_forward_only(traced.graph)
    inputs = inputs_of(model, program)
    assert_close(traced(*inputs), [t.detach() for t in program.fn(*inputs)])
    return traced


@pytest.mark.parametrize("batch_norm", ["batch", "batch_keep_running", "frozen"])
def test_every_program_of_a_small_network(batch_norm: Any) -> None:
    model = spec_and_model("digits_cnn", 8)
    config = clue.Config(batch_norm=batch_norm, saliency_batch=4)
    for program in programs.build(model, "clue", config, 4).programs:
        if batch_norm == "batch" or program.name == "step":
            check_program(model, program)


@pytest.mark.parametrize(
    "config",
    [
        clue.Config(temperature=2.0, kl="teacher_student", saliency_batch=4),
        clue.Config(kl_weight=0.0, saliency_batch=4),
    ],
)
def test_the_step_of_the_other_losses(config: clue.Config) -> None:
    model = spec_and_model("digits_cnn", 8)
    (step,) = (p for p in programs.build(model, "clue", config, 4).programs if p.name == "step")
    check_program(model, step)


@pytest.mark.parametrize(("name", "most"), [("resnet20", 1310), ("vit_small_patch4", 1130)])
def test_the_step_of_a_whole_model_and_its_size(name: str, most: int) -> None:
    model = spec_and_model(name, 8)
    (step,) = (p for p in programs.build(model, "clue", clue.Config(), 2).programs if p.name == "step")
    traced = check_program(model, step)
    assert len(traced.graph.graph.nodes) <= most
    assert all(n.users for n in traced.graph.graph.nodes if n.op == "call_function")


# refusals


def _branches(x: Tensor) -> Tensor:
    if x.sum() > 0:
        return x
    return -x


DATA_DEPENDENT: dict[str, Callable[[Tensor], Any]] = {
    "if x.sum() > 0:": _branches,
    "lambda x: x * x.max().item()": lambda x: x * x.max().item(),
    "lambda x: x[x > 0]": lambda x: x[x > 0],
    "lambda x: x.nonzero()": lambda x: x.nonzero(),
}


@pytest.mark.parametrize("line", DATA_DEPENDENT)
def test_control_flow_on_data_is_refused_with_its_line(line: str) -> None:
    model = Apply(DATA_DEPENDENT[line])
    with pytest.raises(
        ClueError, match="'step' cannot be traced: its control flow or a shape depends"
    ) as caught:
        lower(lambda x: (model(x),), [draw(3)], name="step")
    assert f"({Path(__file__)}, line " in str(caught.value)
    assert line in str(caught.value)


def _by_numpy(x: Tensor) -> Tensor:
    return x + torch.from_numpy(np.sin(x.detach().numpy()))


class NoFormula(torch.autograd.Function):
    """A function of which nobody has said how its gradient is found."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2


class UnseenFormula(torch.autograd.Function):
    """A function whose gradient is worked out where no tracer sees it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return torch.from_numpy(2 * grad.numpy())


@torch.library.custom_op("clue_tests::doubled", mutates_args=())
def doubled(x: Tensor) -> Tensor:
    return x * 2


@doubled.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


def _no_formula(x: Tensor) -> Tensor:
    return NoFormula.apply(x)


def _unseen_formula(x: Tensor) -> Tensor:
    return UnseenFormula.apply(x)


def _custom_operator(x: Tensor) -> Tensor:
    return doubled(x)


def _no_forward_form(x: Tensor) -> Tensor:
    return F.grid_sample(x.reshape(1, 1, 2, 2), x.reshape(1, 2, 1, 2), align_corners=False)


REFUSED: dict[Callable[[Tensor], Tensor], tuple[str, str]] = {
    _by_numpy: ("it leaves PyTorch for NumPy, where no trace can follow", "np.sin(x.detach().numpy())"),
    _no_formula: ("a custom autograd function has no formula for its gradient: give", "NoFormula.apply(x)"),
    _unseen_formula: ("a custom autograd function does, its formula stays unseen", "2 * grad.numpy()"),
    _custom_operator: ("custom operator 'clue_tests.doubled' has no formula for its", "return doubled(x)"),
    _no_forward_form: ("needs the backward of 'grid_sampler_2d_backward", "F.grid_sample("),
}


@pytest.mark.parametrize("function", REFUSED, ids=lambda f: f.__name__)
def test_each_refused_kind_gives_one_sentence_with_its_line(function: Callable[[Tensor], Tensor]) -> None:
    def gradient(x: Tensor) -> tuple[Tensor, ...]:
        leaf = x.detach().clone().requires_grad_()
        return torch.autograd.grad(function(leaf).sum(), [leaf])

    sentence, line = REFUSED[function]
    with pytest.raises(ClueError) as caught:
        lower(gradient, [torch.zeros(4)], name="step")
    message = str(caught.value)
    assert message.startswith("the program 'step' ")
    assert sentence in message
    assert f"({Path(__file__)}, line " in message
    assert line in message
    assert "\n" not in message


def test_a_custom_operator_is_refused_in_the_forward_pass_too() -> None:
    with pytest.raises(ClueError, match=r"calls the operator 'clue_tests\.doubled\.default'.*doubled\(x\)"):
        lower(lambda x: (_custom_operator(x),), [torch.zeros(4)])


@pytest.mark.parametrize("function", [F.dropout, torch.rand_like, lambda x: x.clone().uniform_()])
def test_random_numbers_are_refused(function: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(ClueError, match=r"draws random numbers .*switch it off in the model's eval mode"):
        lower(lambda x: (function(x),), [draw(3)])


def test_views_by_strides_are_refused() -> None:
    with pytest.raises(ClueError, match=r"reads memory by strides \(as_strided\.default\)"):
        lower(lambda x: (x.as_strided((2, 2), (1, 1)),), [draw(3)])


def test_an_unknown_backward_is_refused_by_name() -> None:
    with pytest.raises(ClueError, match=r"needs the backward of 'grid_sampler_2d_backward\.default'"):
        check(Apply(lambda x: F.grid_sample(x, x[:, :, :, :2], align_corners=False)), 1, 2, 2, 2)


def test_other_errors_of_the_model_name_their_line() -> None:
    with pytest.raises(
        ClueError, match=r"cannot be traced: .*shape.* \(.*test_lower.py, line \d+: .*reshape"
    ):
        lower(lambda x: (x.reshape(5),), [draw(3)])


def test_an_error_outside_the_model_names_no_line() -> None:
    with pytest.raises(ClueError, match="cannot be traced: unflatten") as caught:
        lower(nn.Unflatten(0, (2, 2)), [draw(3)])
    assert ", line" not in str(caught.value)


def test_a_refusal_leaves_the_fast_attention_as_it_was() -> None:
    before = torch.backends.mha.get_fastpath_enabled()
    with pytest.raises(ClueError):
        lower(lambda x: (x.nonzero(),), [draw(3)])
    assert torch.backends.mha.get_fastpath_enabled() == before
