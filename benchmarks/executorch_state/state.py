"""State inside ExecuTorch programs, an experiment: is it right, and what does it save?

    python benchmarks/executorch_state/state.py [--width 4096] [--steps 40]

CLUE's traced step of a two-layer perceptron in several forms, driven by state.cpp and compared with eager
PyTorch.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from executorch import exir
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir.passes import MemoryPlanningPass
from torch import Tensor, nn

from clue_mobile import methods, programs
from clue_mobile.flat import FlatModel
from clue_mobile.spec import ModelSpec

BATCH = 4
HERE = Path(__file__).parent


class Held(nn.Module):
    """Buffers that methods share by their names."""

    def __init__(self, graphs: dict[str, nn.Module], size: int) -> None:
        super().__init__()
        self.graphs = nn.ModuleDict(graphs)
        self.register_buffer("params", torch.zeros(size))
        self.register_buffer("momentum", torch.zeros(size))


class Own(Held):
    """One method that keeps its state and returns it too; `load` 1 takes `start` instead of what it holds."""

    def forward(self, load: Tensor, start: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        params = self.params * (1 - load) + start * load
        result = self.graphs["step"](params, self.momentum * (1 - load), *rest)
        self.params.copy_(result[0])
        self.momentum.copy_(result[1])
        return tuple(result)


class Step(Held):
    def forward(self, *rest: Tensor) -> tuple[Tensor, ...]:
        result = self.graphs["step"](self.params, self.momentum, *rest)
        self.params.copy_(result[0])
        self.momentum.copy_(result[1])
        return tuple(result[2:])


class Overwrite(Held):
    def forward(self, start: Tensor) -> Tensor:
        self.params.copy_(start)
        return start.sum()


class Replace(Held):
    """As Overwrite, but the old content is read."""

    def forward(self, start: Tensor) -> Tensor:
        self.params.copy_(self.params * 0 + start)
        return start.sum()


class GetState(Held):
    def forward(self) -> tuple[Tensor, ...]:
        return self.params.clone(), self.momentum.clone()


class Predict(Held):
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.graphs["predict"](self.params, x))


Methods = dict[str, tuple[nn.Module, tuple[Tensor, ...]]]  # and example inputs


def lower(forms: Methods, delegate: bool, plan: Any = None) -> bytes:
    """A .pte of these methods."""
    exported = {name: torch.export.export(module, example) for name, (module, example) in forms.items()}
    edge = exir.to_edge_transform_and_lower(
        exported,
        partitioner=[XnnpackPartitioner()] if delegate else None,
        compile_config=exir.EdgeCompileConfig(_check_ir_validity=False),
    )
    config = exir.ExecutorchBackendConfig(memory_planning_pass=plan or MemoryPlanningPass())
    return bytes(edge.to_executorch(config).buffer)


def main() -> None:
    """Lower, run, compare, print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.manual_seed(0)
    spec = ModelSpec("mlp", tuple("0123456789"), (1, 8, 8), (0.5,), (0.3,))
    layers = (nn.Flatten(), nn.Linear(64, options.width), nn.ReLU(), nn.Linear(options.width, 10))
    model = FlatModel(nn.Sequential(*layers), spec)
    config = methods.configure("clue", {"saliency_batch": BATCH, "lr": 0.01})
    recipe = programs.build(model, "clue", config, BATCH)
    graphs: dict[str, nn.Module] = {p.name: programs.trace(p).graph for p in recipe.programs}
    size = model.sizes["params"]
    state = (model.pack()["params"], torch.zeros(size))
    mask, lr = (torch.rand(size) < 0.5).float(), torch.tensor(0.01)
    x, teacher = torch.rand(options.steps, BATCH, 1, 8, 8), torch.randn(options.steps, BATCH, 10)
    rest = (mask, x[0], teacher[0], lr)

    def shared(setter: type[Held]) -> Methods:
        return {
            "set_state": (setter({}, size), (state[0],)),
            "step": (Step({"step": graphs["step"]}, size), rest),
            "get_state": (GetState({}, size), ()),
            "predict": (Predict({"predict": graphs["predict"]}, size), (x[0],)),
        }

    stateless = {"step": (graphs["step"], (*state, *rest))}
    own = {"step": (Own({"step": graphs["step"]}, size), (torch.tensor(1.0), state[0], *rest))}
    in_place = MemoryPlanningPass(alloc_graph_input=False, alloc_graph_output=False)
    together = lambda: MemoryPlanningPass(share_mutable_buffers=True)  # noqa: E731
    variants: dict[str, Any] = {
        "stateless": lambda: lower(stateless, False),
        "stateless_unplanned": lambda: lower(stateless, False, in_place),
        "own": lambda: lower(own, False),
        "own_inputs_unplanned": lambda: lower(own, False, MemoryPlanningPass(alloc_graph_input=False)),
        "shared_overwrite": lambda: lower(shared(Overwrite), False, together()),
        "shared": lambda: lower(shared(Replace), False, together()),
        "stateless_xnnpack": lambda: lower(stateless, True),
        "stateless_xnnpack_unplanned": lambda: lower(stateless, True, in_place),
        "own_xnnpack": lambda: lower(own, True),
        "shared_xnnpack": lambda: lower(shared(Replace), True, together()),
    }

    expected = list(state)
    for i in range(options.steps):
        expected = [t.detach() for t in graphs["step"](*expected[:2], mask, x[i], teacher[i], lr)]
    logits = graphs["predict"](expected[0], x[0])[0]
    wanted = {"params": expected[0], "momentum": expected[1], "logits": logits.detach()}

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for key, tensor in (("params", state[0]), ("mask", mask), ("x", x), ("teacher", teacher), ("lr", lr)):
            tensor.numpy().tofile(folder / f"{key}.f32")
        compile_driver(folder / "state")
        print(f"{size} parameters, batch {BATCH}, {options.steps} steps, {options.rounds} rounds")
        print("| form | CPU ms a step | fastest round | planned MiB | bits of stateless | errors |")
        print("|---|---|---|---|---|---|")
        made = []
        for variant, make in variants.items():
            try:
                (folder / f"{variant}.pte").write_bytes(make())
                made.append(variant)
            except Exception as error:  # an experiment: what fails is a result
                print(f"{variant}: not lowered: {type(error).__name__}: {str(error).splitlines()[0][:120]}")
        times: dict[str, list[float]] = {variant: [] for variant in made}
        reports = {}
        for _ in range(options.rounds):  # in turns: what else the machine does meets all alike
            for variant in made:
                run = [str(folder / "state"), name, variant, str(options.steps)]
                done = subprocess.run(run, capture_output=True, text=True, check=True)
                reports[variant] = json.loads(done.stdout)
                times[variant].append(reports[variant]["median_ms"])
        for variant in made:
            errors = []
            for key, want in wanted.items():
                got = torch.from_file(str(folder / f"{variant}.{key}"), size=want.numel()).view(want.shape)
                if key != "logits" or variant.startswith("shared"):
                    errors.append(f"{key} {float((got - want).abs().max() / want.abs().max()):.0e}")
            plain = folder / ("stateless_xnnpack" if "xnnpack" in variant else "stateless")
            same = all(
                (folder / f"{variant}.{key}").read_bytes() == plain.with_suffix(f".{key}").read_bytes()
                for key in ("params", "momentum")
            )
            print(
                f"| {variant} | {statistics.median(times[variant]):.2f} | {min(times[variant]):.2f} | "
                f"{reports[variant]['planned_bytes'] / 2**20:.2f} | {'yes' if same else 'NO'} | "
                f"{', '.join(errors)} |"
            )


def compile_driver(path: Path) -> None:
    """state.cpp against the wheel's libraries."""
    found = find_spec("executorch")
    assert found is not None
    assert found.submodule_search_locations is not None
    package = Path(found.submodule_search_locations[0])
    include, library = package / "include", package / "lib"
    names = ("kernels_optimized", "backend_xnnpack", "threadpool")
    command = ["g++", "-std=c++17", "-O2", "-w", HERE / "state.cpp", "-o", path]
    command += ["-DC10_USING_CUSTOM_GENERATED_MACROS", "-DET_EVENT_TRACER_ENABLED", "-DET_USE_THREADPOOL"]
    command += [f"-I{include}", f"-I{include}/executorch/runtime/core/portable_type/c10"]
    command += [f"-L{library}", f"-Wl,-rpath,{library}", "-Wl,--no-as-needed"]
    subprocess.run([*command, *(f"-lexecutorch_{name}" for name in names), "-lexecutorch"], check=True)


if __name__ == "__main__":
    sys.exit(main())
