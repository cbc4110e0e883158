"""The kernel library cross-compiled for aarch64, on an emulated Cortex-A76, against eager PyTorch.

A net that has every way of a convolution: few and many channels, strides, depthwise, 1x1; a residual; ReLU6;
max pooling, layer norms, GELU, and a linear layer that is wide enough for its weights to be cut out a second
time.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from emulated import HERE, MARKS, PI, ROOT, run
from torch import Tensor, nn

from clue_mobile.export import ExportRecipe, export
from clue_mobile.spec import ModelSpec

pytestmark = MARKS
COMPILER = "aarch64-linux-gnu-g++"
SPEC = ModelSpec("net", tuple("abcde"), (3, 11, 10), (0.5,) * 3, (0.25,) * 3)


class Net(nn.Module):
    """[N, 3, 11, 10] -> [N, 5]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.same = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.stride = nn.Conv2d(16, 40, 3, 2, padding=1, bias=False)
        self.deep = nn.Conv2d(40, 40, 3, padding=1, groups=40, bias=False)
        self.more = nn.Conv2d(40, 260, 1, bias=False)
        self.wide = nn.Conv2d(260, 264, 3, padding=1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(c) for c in (16, 16, 40, 40, 260, 264)])
        self.before, self.behind = nn.LayerNorm(264), nn.LayerNorm(264)
        self.dense, self.head = nn.Linear(264, 264), nn.Linear(264, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        first, second, third, fourth, fifth, sixth = self.norms
        x = F.max_pool2d(F.relu(first(self.stem(x))), 3, 2, 1)
        x = F.relu(second(self.same(x)) + x)
        x = F.relu6(third(self.stride(x)))
        x = F.relu6(fourth(self.deep(x)))
        x = F.relu6(fifth(self.more(x)))
        x = F.relu(sixth(self.wide(x))).mean(dim=(2, 3))
        return self.head(self.behind(F.gelu(self.dense(self.before(x)))))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """libclue_kernels.so as kernels/README.md builds it for a Pi."""
    for tool in ("cmake", COMPILER):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool} to build the kernel library for aarch64 with")
    if not Path("/usr/include/hwy/highway.h").is_file():
        pytest.skip("no Highway to build the kernel library on: apt install libhwy-dev")
    folder = tmp_path_factory.mktemp("kernels")
    system = ["-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64"]
    cross = [*system, f"-DCMAKE_CXX_COMPILER={COMPILER}", "-DHIGHWAY_INCLUDE=/usr/include"]
    for command in (["-S", str(ROOT / "kernels"), "-B", str(folder), *cross], ["--build", str(folder)]):
        done = subprocess.run(["cmake", *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return folder / "libclue_kernels.so"


def test_a_step_of_the_kernels_equals_eager(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLUE_KERNELS", str(library))
    torch.manual_seed(0)
    recipe = ExportRecipe(target="host", runtimes=("onnx-clue",), batch=2, kept_at_least=0)
    bundle = export(Net(), SPEC, tmp_path / "net.clue", recipe)
    results = run(PI, HERE / "golden_of.py", bundle, "onnx-clue", "step")
    print("onnx-clue, largest golden error of a step:", max(row["error"] for row in results))
    assert results
    assert all(row["ok"] for row in results), results
