from __future__ import annotations

import copy
import hashlib
import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from tiny_models import (
    SPEC,
    Baked,
    BatchNormNet,
    TinyTransformer,
    found_elements,
    found_windows,
    made,
    numpy_tensors,
)
from torch import nn

import clue_mobile
from clue_mobile import methods, models, programs
from clue_mobile.bundle.reader import unpack
from clue_mobile.errors import ClueError
from clue_mobile.export import ExportRecipe, export
from clue_mobile.flat import FlatModel
from clue_mobile.spec import ModelSpec
from clue_mobile.study.demo import HYPERPARAMETERS
from pi_runtime import Bundle, Runtime
from pi_runtime.golden import GoldenResult, check
from pi_runtime.onnx_engine import OnnxEngine

ROOT = Path(__file__).parents[2]


def manifest_of(bundle: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((bundle / "manifest.json").read_bytes())
    return data


def golden_results(bundle: Path) -> list[GoldenResult]:
    return check(Bundle.open(bundle), OnnxEngine(1))


def export_tiny(kind: type[nn.Module], out: Path, *, batch: int = 4, **hyperparameters: Any) -> Path:
    hyperparameters = {"saliency_batch": 8, "tau": 1e-3, **hyperparameters}
    # No signal: such tiny models of random weights have nothing to keep.
    recipe = ExportRecipe(target="host", batch=batch, hyperparameters=hyperparameters, kept_at_least=0)
    return export(made(kind), SPEC, out, recipe)


@pytest.fixture(scope="module")
def transformer_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """TinyTransformer with CLUE's defaults, for the host. Read only."""
    return export_tiny(TinyTransformer, tmp_path_factory.mktemp("transformer") / "t.clue")


# the whole bundle


def test_the_manifest_lists_every_file(digits_bundle: Path) -> None:
    manifest = manifest_of(digits_bundle)
    on_disk = {str(p.relative_to(digits_bundle)) for p in digits_bundle.rglob("*") if p.is_file()}
    listed = {row["file"] for row in manifest["files"]}
    assert on_disk == listed | {"manifest.json", "manifest.sha256"}
    assert len(listed) == len(manifest["files"])
    for row in manifest["files"]:
        data = (digits_bundle / row["file"]).read_bytes()
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (row["sha256"], row["bytes"]), row["file"]
    digest = hashlib.sha256((digits_bundle / "manifest.json").read_bytes()).hexdigest()
    assert (digits_bundle / "manifest.sha256").read_text() == f"{digest}  manifest.json\n"


def test_the_runtime_opens_it_and_agrees_with_eager_pytorch(digits_bundle: Path) -> None:
    bundle = Bundle.open(digits_bundle)
    assert set(bundle.programs) == {"predict", "predict_1", "saliency", "mask", "teacher", "step"}
    assert {bundle.programs[name].batch for name in bundle.programs} == {32, 1}
    results = golden_results(digits_bundle)
    assert len(results) == sum(len(program.outputs) for program in bundle.programs.values())
    assert [result for result in results if not result.ok] == []
    assert max(result.error for result in results) < 2e-5


def test_the_weights_are_the_models(digits_bundle: Path, digits_weights: Path) -> None:
    module = models.load(models.resolve_spec("digits_cnn"), digits_weights)
    flat = load_file(digits_bundle / "weights.safetensors")
    named = unpack(Bundle.open(digits_bundle), flat)
    expected = {k: v.numpy() for k, v in module.state_dict().items() if v.is_floating_point()}
    assert named.keys() == expected.keys()
    assert all(np.array_equal(named[name], expected[name]) for name in expected)


def test_the_exported_classifier_is_the_model(
    digits_bundle: Path, digits_weights: Path, digits_data: Any, tmp_path: Path
) -> None:
    spec = models.resolve_spec("digits_cnn")
    module = models.load(spec, digits_weights)
    images = digits_data.test.images[:33]  # one more than a batch: predict_1 takes part
    x = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        expected = module((x - spec.mean[0]) / spec.std[0]).numpy()
    with Runtime.open(digits_bundle, tmp_path / "store", threads=1) as runtime:
        np.testing.assert_allclose(runtime.predict(images), expected, rtol=1e-4, atol=1e-4)


def test_flops_of_predict_are_those_counted_by_hand(digits_bundle: Path) -> None:
    one = 2 * (16 * 64 * 9 + 32 * 16 * 9 * 16 + 64 * 16 * 9 * 32 + 64 * 10)  # 8x8, then 4x4 outputs
    programs = manifest_of(digits_bundle)["programs"]
    assert programs["predict_1"]["flops"] == one
    assert programs["predict"]["flops"] == programs["teacher"]["flops"] == 32 * one
    # a step does the forward pass and, but for the first layer's input, two passes back
    first = 2 * 16 * 64 * 9
    assert programs["step"]["flops"] == 32 * (3 * one - first)
    assert programs["mask"]["flops"] == 0


def test_the_planned_peak_is_no_less_than_what_goes_in_and_out(digits_bundle: Path) -> None:
    for name, program in manifest_of(digits_bundle)["programs"].items():
        ports = 4 * sum(math.prod(p["shape"]) for p in (*program["inputs"], *program["outputs"]))
        assert program["peak_bytes"] >= ports, name


# programs hold no weights, and nothing of the machine


def programs_in(bundle: Path) -> list[Path]:
    paths = [path for path in (bundle / "programs").rglob("*") if path.is_file()]
    assert paths
    return paths


def test_no_trained_weight_is_in_a_program(digits_bundle: Path, digits_weights: Path) -> None:
    tensors = load_file(digits_weights)
    assert sum(tensor.size > 8 for tensor in tensors.values()) > 10
    assert found_windows(programs_in(digits_bundle), tensors) == set()
    assert found_elements(programs_in(digits_bundle), tensors) == set()
    # Golden files hold numbers drawn to be like weights: some are equal by chance, four in a row are not.
    assert found_windows((digits_bundle / "golden").iterdir(), tensors) == set()
    # the searches do find them where they are
    for search in (found_windows, found_elements):
        names = {name for _, name in search([digits_bundle / "weights.safetensors"], tensors)}
        assert names == {name for name, tensor in tensors.items() if tensor.size > 8}


def test_the_search_finds_a_weight_that_was_baked_in(tmp_path: Path) -> None:
    bundle = export_tiny(Baked, tmp_path / "baked.clue")
    module = made(Baked)
    secrets = {"secret": module.secret.numpy(), **numpy_tensors(module.state_dict())}
    found = found_elements(programs_in(bundle), secrets)
    assert {name for _, name in found} == {"secret"}
    assert "step.onnx" in {file for file, _ in found}
    # In its own order it is in no program: the product takes it transposed.
    turned = {"secret": module.secret.t().contiguous().numpy()}
    assert found_windows(programs_in(bundle), turned) == found


def test_nothing_of_the_machine_is_in_a_program(digits_bundle: Path) -> None:
    for path in programs_in(digits_bundle):
        assert machine_words(path.read_bytes()) == set(), path.name


def machine_words(data: bytes) -> set[bytes]:
    """What a file should not tell of the computer that exported it."""
    places = [
        ROOT,
        Path.home(),
        Path(sys.prefix),
        Path(torch.__file__).parent,
        Path(clue_mobile.__file__).parent,
    ]
    words = {str(place).encode() for place in places if len(str(place)) > 1}
    words |= {b".py", b"Traceback", b"site-packages", b"stack_trace", b"/tmp/", b"/home/"}
    return {word for word in words if word in data}


def test_the_search_for_the_machine_can_find_something() -> None:
    frame = f'File "{Path(torch.__file__).parent}/nn/modules/conv.py", line 3'
    assert machine_words(frame.encode()) >= {b".py", str(Path(torch.__file__).parent).encode()}


# the runtime folder


def test_the_runtime_folder_is_complete(digits_bundle: Path) -> None:
    folder = digits_bundle / "runtime"
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    assert {"pyproject.toml", "README.md", "requirements.txt"} <= files.keys()
    for package in ("pi_runtime", "contract"):
        source = {
            path.relative_to(ROOT).as_posix(): path.read_bytes()
            for path in (ROOT / package).rglob("*")
            if path.is_file()
            and not {"__pycache__", "scenarios"} & set(path.parts)  # scenarios are for tests
            and not path.name.startswith(".")
        }
        assert {
            name: path.read_bytes() for name, path in files.items() if name.startswith(f"{package}/")
        } == source
    assert "contract/schema.sql" in files
    assert not [name for name in files if "__pycache__" in name or name.endswith(".pyc")]


def test_the_host_target_has_programs_but_no_runtime(transformer_bundle: Path) -> None:
    assert not (transformer_bundle / "runtime").exists()
    assert manifest_of(transformer_bundle)["target"] == "host"
    assert {path.suffix for path in programs_in(transformer_bundle)} == {".onnx"}


# other models and hyperparameters


def test_a_model_without_buffers(transformer_bundle: Path) -> None:
    manifest = manifest_of(transformer_bundle)
    assert not list(made(TinyTransformer).buffers())
    assert [name for name, value in manifest["values"].items() if value["role"] == "state"] == ["params"]
    assert [p["name"] for p in manifest["programs"]["step"]["outputs"]] == [
        "params_next", "momentum_next", "energy", "kl",
    ]  # fmt: skip
    assert [result for result in golden_results(transformer_bundle) if not result.ok] == []


@pytest.mark.parametrize(
    ("mode", "moved"), [("batch", ["buffers_next"]), ("batch_keep_running", []), ("frozen", [])]
)
def test_batch_norm_decides_whether_the_step_writes_the_buffers(mode: str, moved: list[str]) -> None:
    config = methods.configure("clue", {"batch_norm": mode})
    recipe = programs.build(FlatModel(made(BatchNormNet), SPEC), "clue", config, 4)
    (step,) = (program for program in recipe.programs if program.name == "step")
    outputs = [port.name for port in step.outputs]
    assert outputs == ["params_next", *moved, "momentum_next", "energy", "kl"]


def test_without_kl_there_is_no_teacher(tmp_path: Path) -> None:
    bundle = export_tiny(TinyTransformer, tmp_path / "t.clue", kl_weight=0.0, augment="crop_flip")
    manifest = manifest_of(bundle)
    assert "teacher" not in manifest["programs"]
    assert "teacher" not in manifest["values"]
    assert manifest["randoms"] == {}
    assert "teacher" not in json.dumps(manifest["plan"])
    assert "teacher" not in json.dumps(manifest["programs"]["step"]["inputs"])
    assert not list(bundle.rglob("teacher*"))
    assert [result for result in golden_results(bundle) if not result.ok] == []
    images = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 1), np.uint8)
    with Runtime.open(bundle, tmp_path / "store", threads=1) as runtime:
        runtime.add(images, 0)
        result = runtime.forget(0, seed=1, scalars={"epochs": 1}, verify_at_most=100)
        assert result.status == "done"
        assert set(result.evidence["metrics"]) == {"saliency", "step"}


def test_the_same_model_gives_the_same_files(transformer_bundle: Path, tmp_path: Path) -> None:
    one, other = transformer_bundle, export_tiny(TinyTransformer, tmp_path / "other.clue")
    names = [path.relative_to(one) for path in one.rglob("*") if path.is_file()]
    assert len(names) > 10
    different = [str(n) for n in names if (one / n).read_bytes() != (other / n).read_bytes()]
    assert set(different) <= {"manifest.json", "manifest.sha256"}  # name and time of the export


def test_the_module_is_left_alone_and_every_program_told(tmp_path: Path) -> None:
    module = made(BatchNormNet).train()
    before = copy.deepcopy(module.state_dict())
    told: list[tuple[str, int, int]] = []
    recipe = ExportRecipe(
        target="host", batch=2, tuned_batch=256, name="named", hyperparameters={"epochs": 1}
    )
    path = export(
        module, SPEC, tmp_path / "deep" / "t.clue", recipe, progress=lambda *args: told.append(args)
    )
    assert path == tmp_path / "deep" / "t.clue"
    assert module.training
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    names = ["predict", "predict_1", "saliency", "mask", "teacher", "step"]
    assert [stage for stage, *_ in told] == [
        *(f"golden {name}" for name in names),
        *(f"onnx {name}" for name in names),
        "runtime",
    ]
    assert [(done, total) for _, done, total in told] == [(n, 13) for n in range(13)]
    bundle = Bundle.open(path)
    assert (bundle.name, bundle.batch, bundle.tuned_batch) == ("named", 2, 256)
    assert [result for result in golden_results(path) if not result.ok] == []  # batch norm in training mode


# what cannot be exported


def refuse(
    tmp_path: Path, message: str, module: nn.Module | None = None, spec: ModelSpec = SPEC, **recipe: Any
) -> None:
    """The export raises a ClueError that matches, and leaves nothing behind."""
    with pytest.raises(ClueError, match=message):
        export(module or made(BatchNormNet), spec, tmp_path / "t.clue", ExportRecipe(**recipe))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("recipe", "message"), [
    ({"target": "pi4"}, "unknown target 'pi4': did you mean 'pi5'[?] Choices: android, host, ios, pi5"),
    ({"runtimes": ("onx",)}, "unknown runtime 'onx': did you mean 'onnx'"),
    ({"method": "cleu"}, "unknown method 'cleu': did you mean 'clue'"),
    ({"hyperparameters": {"learning_rate": 1}}, "unknown hyperparameter of clue 'learning_rate'"),
    ({"hyperparameters": {"tau": "low"}}, "tau must be a finite number, not 'low'"),
    ({"batch": 24}, "--batch 24 does not divide saliency_batch 256"),
    ({"hyperparameters": {"saliency_batch": 48}}, "--batch 32 does not divide saliency_batch 48"),
    ({"batch": 1}, "--batch must be from 2 to 4096, not 1"),
    ({"batch": 8192}, "--batch must be from 2 to 4096"),
    ({"tuned_batch": -1}, "--tuned-batch must be at least 1, not -1"),
    ({"name": "a/../b"}, "--name 'a/../b' must be letters"),
    ({"batch": 4, "hyperparameters": {"temperature": 1e-3}}, "'step' gives .* not finite"),
])  # fmt: skip
def test_bad_requests(tmp_path: Path, recipe: dict[str, Any], message: str) -> None:
    refuse(tmp_path, message, **recipe)


def test_another_number_of_channels(tmp_path: Path) -> None:
    spec = ModelSpec("two", ("a", "b", "c"), (2, 4, 4), (0, 0), (1, 1))
    refuse(tmp_path, "two takes images of 2 channels", made(BatchNormNet), spec)


def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    module = made(BatchNormNet)
    module.head.weight.data[0, 0] = math.nan
    refuse(tmp_path, "the params of tiny are not all finite", module, batch=4)


def test_weights_in_another_precision(tmp_path: Path) -> None:
    refuse(
        tmp_path, "the params of tiny are float64: call module.float", made(BatchNormNet).double(), batch=4
    )


def test_a_model_that_returns_no_logits_of_the_classes(tmp_path: Path) -> None:
    spec = ModelSpec("four", ("a", "b", "c", "d"), (1, 4, 4), (0,), (1,))
    refuse(tmp_path, r"not logits of shape \(4, 4\): check --classes", made(BatchNormNet), spec, batch=4)


def test_a_model_without_a_forward_form(tmp_path: Path) -> None:
    class Branching(BatchNormNet):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x if x.sum() > 0 else -x)

    refuse(tmp_path, "cannot be traced: its control flow", made(Branching), batch=4)


def test_the_old_bundle_stays_until_the_new_one_is_complete(transformer_bundle: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(transformer_bundle, tmp_path / "t.clue"))
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(ClueError, match="exists already: choose another --out, or give --force"):
        export_tiny(TinyTransformer, out)
    recipe = ExportRecipe(target="host", batch=4, hyperparameters={"temperature": 1e-3})
    with pytest.raises(ClueError, match="not finite"):
        export(made(TinyTransformer), SPEC, out, recipe, replace=True)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    recipe = ExportRecipe(target="host", batch=2, hyperparameters={"saliency_batch": 8})
    export(made(TinyTransformer), SPEC, out, recipe, replace=True)
    assert Bundle.open(out).batch == 2
    assert [path.name for path in tmp_path.iterdir()] == ["t.clue"]


def test_the_manifest_is_valid_and_says_what_was_asked_for(digits_bundle: Path) -> None:
    manifest = manifest_of(digits_bundle)
    schema = json.loads((ROOT / "contract" / "manifest.schema.json").read_bytes())
    jsonschema.Draft202012Validator(schema).validate(manifest)
    hyperparameters = manifest["method"]["hyperparameters"]
    assert {key: hyperparameters[key] for key in HYPERPARAMETERS} == HYPERPARAMETERS
