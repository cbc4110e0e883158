"""FlatModel: nothing lost between a module and its vectors, three modes of batch norm, what is refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from clue_mobile.errors import ClueError
from clue_mobile.flat import FlatModel
from clue_mobile.spec import ModelSpec

SPEC = ModelSpec("net", ("a", "b", "c"), (2, 4, 4), mean=(0.4, 0.6), std=(0.5, 0.25))


class Net(nn.Module):
    """Convolution, batch norm, dropout, linear; a parameter that takes no part and a buffer of integers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.norm = nn.BatchNorm2d(4, momentum=0.3)
        self.drop = nn.Dropout(0.9)
        self.fc = nn.Linear(4, 3)
        self.unused = nn.Parameter(torch.ones(2))
        self.register_buffer("order", torch.tensor([2, 0, 1]))

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(self.norm(self.conv(x)).relu())
        return self.fc(x.mean((2, 3)))[:, self.order]


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    module = Net()
    module(torch.rand(4, 2, 4, 4))  # running statistics that are not the initial ones
    return module


@pytest.fixture
def pixels() -> Tensor:
    return torch.rand(5, 2, 4, 4, generator=torch.Generator().manual_seed(1))


def normalised(x: Tensor) -> Tensor:
    return (x - torch.tensor(SPEC.mean).view(1, 2, 1, 1)) / torch.tensor(SPEC.std).view(1, 2, 1, 1)


# the table and the vectors


def test_entries_lie_one_behind_the_other(net: Net) -> None:
    model = FlatModel(net, SPEC)
    assert model.sizes == {"params": 72 + 4 + 8 + 15 + 2, "buffers": 8}
    for value, size in model.sizes.items():
        rows = [e for e in model.entries if e.value == value]
        assert [e.offset for e in rows] == [sum(r.numel for r in rows[:i]) for i in range(len(rows))]
        assert sum(e.numel for e in rows) == size
    names = [e.name for e in model.entries]
    assert "norm.running_mean" in names
    assert not {"norm.num_batches_tracked", "order"} & set(names)
    row = {"name": "unused", "shape": [2], "value": "params", "offset": 0}
    assert model.entries[0].to_json() == row | {"kind": "parameter", "trainable": True}


@settings(deadline=None, derandomize=True, database=None, max_examples=15)
@given(trainable=st.sets(st.sampled_from(["conv", "norm", "fc"]), min_size=1), seed=st.integers(0, 99))
def test_packing_loses_nothing(trainable: set[str], seed: int) -> None:
    torch.manual_seed(seed)
    net = Net()
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name.split(".")[0] in trainable)
    model = FlatModel(net, SPEC)
    state = model.pack()
    assert {key: len(vector) for key, vector in state.items()} == model.sizes
    assert {e.name.split(".")[0] for e in model.entries if e.trainable} == trainable

    other = Net()
    missing, unexpected = other.load_state_dict(model.state_dict(state), strict=False)

    assert set(missing) <= {"norm.num_batches_tracked", "order"}
    assert not unexpected
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name
    assert all(torch.equal(v, model.pack(model.state_dict(state))[k]) for k, v in state.items())


def test_the_module_given_is_left_alone(net: Net, pixels: Tensor) -> None:
    before = copy.deepcopy(net.state_dict())
    model = FlatModel(net, SPEC)
    state = model.pack()
    vectors = {key: v.clone() for key, v in state.items()}
    leaves = model.leaves(state)
    logits, _ = model.forward(leaves, state, pixels, "batch")
    model.gradient(logits.sum(), leaves)
    assert net.training
    assert net.norm.num_batches_tracked == 1
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert all(torch.equal(v, vectors[k]) for k, v in state.items())


def test_tied_parameters_are_one(pixels: Tensor) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(32, 32, bias=False), nn.Linear(32, 32, bias=False)
            self.b.weight = self.a.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x.flatten(1)))[:, :3]

    model = FlatModel(Tied(), SPEC)
    assert model.sizes == {"params": 32 * 32}
    state = {"params": torch.eye(32).reshape(-1) * 2}
    torch.testing.assert_close(model.predict(state, pixels), 4 * normalised(pixels).flatten(1)[:, :3])


class Shared(nn.Module):
    """One layer under two names, as CoaT has them."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(32, 32, bias=False)
        self.b = nn.Sequential(self.a)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x.flatten(1)))[:, :3]


def test_a_layer_with_two_names_is_left_as_it_was(pixels: Tensor) -> None:
    model = FlatModel(Shared(), SPEC)
    before = model.pack()
    assert model.sizes == {"params": 32 * 32}
    state = {"params": torch.eye(32).reshape(-1) * 2}
    torch.testing.assert_close(model.predict(state, pixels), 4 * normalised(pixels).flatten(1)[:, :3])
    leaves = model.leaves(state)
    gradient = model.gradient(model.forward(leaves, state, pixels, "frozen")[0].sum(), leaves)
    assert gradient.shape == (32 * 32,)
    assert torch.equal(model.pack()["params"], before["params"])


# forward and gradient


def test_predict_is_the_module_in_eval_mode_on_normalised_pixels(net: Net, pixels: Tensor) -> None:
    model = FlatModel(net, SPEC)
    torch.testing.assert_close(model.predict(model.pack(), pixels), net.eval()(normalised(pixels)))


def test_batch_mode_moves_the_running_statistics_as_pytorch_does(net: Net, pixels: Tensor) -> None:
    model = FlatModel(net, SPEC)
    state = model.pack()
    net.drop.eval()

    logits, moved = model.forward(model.leaves(state), state, pixels, "batch")

    torch.testing.assert_close(logits, net.train(True) and net.drop.eval() and net(normalised(pixels)))
    assert set(moved) == {"buffers"}
    after = model.named("buffers", moved["buffers"])
    torch.testing.assert_close(after["norm.running_mean"], net.norm.running_mean)
    torch.testing.assert_close(after["norm.running_var"], net.norm.running_var)


def test_the_other_modes_move_nothing(net: Net, pixels: Tensor) -> None:
    model = FlatModel(net, SPEC)
    state = model.pack()
    leaves = model.leaves(state)
    logits = {
        mode: model.forward(leaves, state, pixels, mode) for mode in ("batch", "batch_keep_running", "frozen")
    }
    assert torch.equal(logits["batch"][0], logits["batch_keep_running"][0])
    assert not torch.allclose(logits["batch"][0], logits["frozen"][0])
    assert logits["batch_keep_running"][1] == logits["frozen"][1] == {}
    # no mode outlives its call
    assert torch.equal(model.predict(state, pixels), logits["frozen"][0])


def test_gradient_is_that_of_the_module(net: Net, pixels: Tensor) -> None:
    net.conv.requires_grad_(False)
    model = FlatModel(net, SPEC)
    state = model.pack()
    leaves = model.leaves(state)
    logits, _ = model.forward(leaves, state, pixels)

    gradient = model.named("params", model.gradient(logits.pow(2).sum(), leaves))

    net.eval()(normalised(pixels)).pow(2).sum().backward()
    assert not any(name.startswith("conv") for name in gradient)
    assert not gradient.pop("unused").any()
    for name, value in gradient.items():
        torch.testing.assert_close(value, net.get_parameter(name).grad)


def test_ports_and_values_follow_the_sizes(net: Net) -> None:
    net.requires_grad_(False).fc.requires_grad_()
    model = FlatModel(net, SPEC)
    assert [(p.name, p.shape) for p in model.state_ports()] == [
        ("params", (15,)), ("frozen", (86,)), ("buffers", (8,)),
    ]  # fmt: skip
    assert {name: v.shape for name, v in model.values().items()} == {
        "params": (15,),
        "frozen": (86,),
        "buffers": (8,),
    }
    (port,) = model.next_ports(["buffers"])
    assert (port.name, port.binds, port.shape) == ("buffers_next", "buffers", (8,))
    state, rest = model.unflatten(tuple(torch.tensor(i) for i in range(5)))
    assert list(state) == ["params", "frozen", "buffers"]
    assert [int(t) for t in rest] == [3, 4]


# refusals


class Returns(nn.Module):
    """Returns what it is told to."""

    def __init__(self, result: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.result = result

    def forward(self, x: Tensor) -> Any:
        return self.result


@pytest.mark.parametrize(
    ("result", "found"),
    [
        (torch.zeros(5, 4), r"returns \(5, 4\)"),
        (torch.zeros(3), r"returns \(3,\)"),
    ],
)
def test_logits_of_another_shape_are_refused(result: Any, found: str, pixels: Tensor) -> None:
    model = FlatModel(Returns(result), SPEC)
    with pytest.raises(ClueError, match=rf"{found}.*not logits of shape \(5, 3\): check --classes"):
        model.predict(model.pack(), pixels)


def test_running_statistics_without_momentum_are_refused() -> None:
    net = Net()
    net.norm.momentum = None
    with pytest.raises(ClueError, match=r"layer 'norm' .*momentum=None.*set a momentum, such as 0\.1"):
        FlatModel(net, SPEC)
    net.norm = nn.BatchNorm2d(4, momentum=None, track_running_stats=False)  # nothing to carry on
    FlatModel(net, SPEC)


def test_nothing_trainable_is_refused() -> None:
    with pytest.raises(ClueError, match=r"no trainable parameter.*--train-only"):
        FlatModel(Net().requires_grad_(False), SPEC)


class Answers(nn.Module):
    """A classifier that returns whatever it is given to make of its logits."""

    def __init__(self, answer: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 3)
        self.answer = answer

    def forward(self, x: Tensor) -> Any:
        return self.answer(self.fc(x.mean((2, 3))))


@pytest.mark.parametrize(("answer", "found"), [
    (lambda z: (z, z[:, :2]), r"a tuple of 2 \(a tensor \(5, 3\), a tensor \(5, 2\)\)"),
    (lambda z: {"logits": z, "aux": z}, "a dict of 'logits', 'aux'"),
    (lambda z: Pair(z, None), r"a Pair of 2 \(logits=a tensor \(5, 3\), aux=a NoneType\)"),
])  # fmt: skip
def test_what_is_returned_besides_logits_is_named(
    answer: Callable[[Tensor], Any], found: str, pixels: Tensor
) -> None:
    model = FlatModel(Answers(answer), SPEC)
    with pytest.raises(ClueError, match=rf"{found} \(.*test_flat\.py, line \d+\).*returns its logits alone"):
        model.predict(model.pack(), pixels)


class Pair(NamedTuple):
    """Two logits, as models with auxiliary heads return them."""

    logits: Tensor
    aux: Tensor | None


class WithAuxiliaryHead(nn.Module):
    """Two heads while it trains and one otherwise, as GoogLeNet and Inception have."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(2)
        self.fc, self.aux = nn.Linear(2, 3), nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))

    def forward(self, x: Tensor) -> Any:
        pooled = self.norm(x).mean((2, 3))
        return Pair(self.fc(pooled), self.aux(pooled)) if self.training else self.fc(pooled)


def test_auxiliary_heads_take_no_part(pixels: Tensor) -> None:
    model = FlatModel(WithAuxiliaryHead(), SPEC)
    state = model.pack()
    leaves = model.leaves(state)
    logits, moved = model.forward(leaves, state, pixels, "batch")
    gradient = model.named("params", model.gradient(logits.pow(2).sum(), leaves))
    for name, value in gradient.items():
        assert bool(value.any()) != name.startswith("aux"), name
    after = model.named("buffers", moved["buffers"])
    assert not after["aux.1.running_mean"].any()
    assert after["norm.running_mean"].any()


def _quantized() -> nn.Module:
    layer: nn.Module = nn.Linear(3, 3)
    layer.weight = nn.Parameter(torch.zeros(3, 3, dtype=torch.int8), requires_grad=False)  # type: ignore[assignment]
    return layer


def _complex() -> nn.Module:
    layer = nn.Linear(3, 3)
    layer.register_buffer("turns", torch.zeros(2, dtype=torch.complex64))
    return layer


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "lazy": (lambda: nn.LazyLinear(3), r"layer '0' \(LazyLinear\) has no weights yet.*run one batch through"),
    "half": (lambda: nn.Linear(3, 3).half(), "parameter '0.weight' is torch.float16.*module.float"),
    "bfloat16": (lambda: nn.Linear(3, 3).bfloat16(), "parameter '0.weight' is torch.bfloat16.*module.float"),
    "complex": (
        lambda: nn.Linear(3, 3, dtype=torch.complex64),
        "'0.weight' is torch.complex64.*no runtime has",
    ),
    "complex buffer": (_complex, "the buffer '0.turns' is torch.complex64"),
    "integers": (
        _quantized,
        "the parameter '0.weight' is torch.int8, which has no gradient: make it a buffer",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_weights_that_no_program_can_hold_are_refused(kind: str) -> None:
    make, sentence = REFUSED[kind]
    with pytest.raises(ClueError, match=sentence):
        FlatModel(nn.Sequential(make()), SPEC)


@pytest.mark.filterwarnings("ignore")
def test_quantized_layers_are_refused() -> None:
    layer = torch.ao.nn.quantized.dynamic.Linear(3, 3)
    with pytest.raises(ClueError, match=r"layer '0' \(Linear\) is quantized.*float32 model that it was made"):
        FlatModel(nn.Sequential(layer), SPEC)


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_the_old_weight_norm_can_be_copied(pixels: Tensor) -> None:
    module = torch.nn.utils.weight_norm(nn.Conv2d(2, 3, 1))
    net = nn.Sequential(module, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net(pixels)  # leaves a weight with a history behind
    model = FlatModel(net, SPEC)
    assert {e.name for e in model.entries} == {"0.bias", "0.weight_g", "0.weight_v"}
    torch.testing.assert_close(model.predict(model.pack(), pixels), net(normalised(pixels)))


def test_batch_norm_without_running_statistics_normalises_by_the_batch(pixels: Tensor) -> None:
    net = nn.Sequential(
        nn.BatchNorm2d(2, track_running_stats=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3)
    )
    model = FlatModel(net, SPEC)
    state = model.pack()
    for mode in ("frozen", "batch", "batch_keep_running"):
        logits, moved = model.forward(model.leaves(state), state, pixels, mode)  # type: ignore[arg-type]
        torch.testing.assert_close(logits, net(normalised(pixels)))
        assert moved == {}


class Remembers(nn.Module):
    """Keeps what it made of its weight in eval mode, as LeViT keeps its attention biases."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 3)
        self.kept: dict[str, Tensor] = {}
        self.last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if "scale" not in self.kept:
            self.kept["scale"] = self.fc.weight.sum()
        if self.last is None:
            self.last = self.fc.bias * 2
        return self.fc(x.mean((2, 3))) * self.kept["scale"] + self.last


def test_what_a_layer_keeps_is_forgotten_after_each_call(pixels: Tensor) -> None:
    model = FlatModel(Remembers(), SPEC)
    state = model.pack()
    first = model.predict(state, pixels)
    doubled = {"params": state["params"] * 2}
    assert not torch.equal(model.predict(doubled, pixels), first)
    for _ in range(2):  # a graph that was kept would be gone the second time
        leaves = model.leaves(state)
        logits, _ = model.forward(leaves, state, pixels)
        assert model.gradient(logits.sum(), leaves).any()
    assert torch.equal(model.predict(state, pixels), first)
