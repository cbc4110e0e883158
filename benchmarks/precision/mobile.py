"""What LiteRT and ExecuTorch's XNNPACK delegate do with a float16 convolution and linear layer, here.

python benchmarks/precision/mobile.py
"""

from __future__ import annotations

import json
import platform

import flatbuffers
import numpy as np
import torch
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower
from executorch.runtime import Runtime
from torch import nn

from clue_mobile.plan import Port, Program
from clue_mobile.programs import trace
from exporters import litert_forms, litert_graph, litert_ops


class Net(nn.Module):
    """A convolution and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8 * 64, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[2, 4] of [2, 3, 8, 8]."""
        return self.head(torch.relu(self.conv(x)).flatten(1))


def executorch() -> dict[str, object]:
    """Lower and run the network in float16; what was left outside the delegate."""
    torch.manual_seed(0)
    net, x = Net().eval(), torch.rand(2, 3, 8, 8)
    wanted = net(x)
    edge = to_edge_transform_and_lower(
        torch.export.export(net.half(), (x.half(),)), partitioner=[XnnpackPartitioner()]
    )
    left = [str(n.target) for n in edge.exported_program().graph.nodes if n.op == "call_function"]
    method = Runtime.get().load_program(edge.to_executorch().buffer).load_method("forward")
    assert method is not None
    got = method.execute([x.half()])[0]
    error = float((got.float() - wanted).abs().max() / wanted.abs().max())
    return {
        "calls": [name for name in left if "getitem" not in name],
        "dtype": str(got.dtype),
        "error": error,
    }


def litert() -> dict[str, object]:
    """The same as builtin operators whose tensors are declared float16; what the interpreter says."""
    torch.manual_seed(0)
    weights = dict(Net().named_parameters())

    def fn(x: torch.Tensor, conv: torch.Tensor, head: torch.Tensor) -> tuple[torch.Tensor, ...]:
        z = torch.relu(nn.functional.conv2d(x, conv, padding=1)).flatten(1)
        return (z @ head,)

    shapes = {"x": (2, 3, 8, 8), "conv": tuple(weights["conv.weight"].shape), "head": (8 * 64, 4)}
    ports = tuple(Port(name, "state", shape, name) for name, shape in shapes.items())
    program = Program("net", 2, ports, (Port("y", "result", (2, 4)),), fn)
    graph = trace(program, overrides=litert_forms.OVERRIDES).graph
    model = litert_graph.Model()
    litert_ops.translate(model, "net", graph, list(shapes), ["y"])
    made = schema.ModelT.InitFromPackedBuf(model.to_bytes())
    for tensor in made.subgraphs[-1].tensors:
        if tensor.type == schema.TensorType.FLOAT32:
            tensor.type = schema.TensorType.FLOAT16
            data = made.buffers[tensor.buffer].data
            if data is not None and len(data):
                halved = np.frombuffer(bytes(data), np.float32).astype(np.float16)
                made.buffers[tensor.buffer].data = np.frombuffer(halved.tobytes(), np.uint8)
    builder = flatbuffers.Builder(1024)
    builder.Finish(made.Pack(builder), b"TFL3")
    try:
        interpreter = Interpreter(model_content=bytes(builder.Output()), num_threads=1)
        interpreter.allocate_tensors()
        for detail in interpreter.get_input_details():
            interpreter.set_tensor(detail["index"], np.zeros(detail["shape"], detail["dtype"]))
        interpreter.invoke()
    except (RuntimeError, ValueError) as error:
        return {"refused": str(error).strip()}
    types = [d["dtype"].__name__ for d in interpreter.get_tensor_details()]
    return {"ran": sorted(set(types))}


def main() -> None:
    """See the module."""
    for name, fn in (("executorch", executorch), ("litert", litert)):
        print(json.dumps({"runtime": name, "machine": platform.machine(), **fn()}))


if __name__ == "__main__":
    main()
