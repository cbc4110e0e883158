"""Export: a trained classifier and a method become a bundle. Stages: prepare, trace, convert, golden,
write."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clue_mobile.errors import ClueError, unknown
from pi_runtime.images.resize import FITS

if TYPE_CHECKING:
    from torch import nn

    from clue_mobile.methods import Samples
    from clue_mobile.spec import ModelSpec

Progress = Callable[[str, int, int], None]


# Percent of the made-up images that new weights must keep, by the method that it was measured for
# (benchmarks/collapse). SSD, which damps weights wherever the class is strong, keeps 17 % without a loss.
KEPT_AT_LEAST = {"clue": 30.0}


@dataclass(frozen=True)
class ExportRecipe:
    """What to export.

    batch: samples in one step on the device. tuned_batch: the batch lr and tau were chosen at (default:
    batch). runtimes: these instead of the target's, or "+NAME" in addition to them.
    guard_per_class: images of each class of the guard data that go into the bundle; guard_drop: points by
    which the accuracy on them may fall. kept_at_least: percent of the retain-free signal that new weights
    must keep, on bundles without guard images: 0 to leave it unchecked, None for what the method was seen to
    keep (KEPT_AT_LEAST).
    float16_predict: also a `predict_float16`, for the runtimes that can compute in float16. fit: how
    devices bring images to the model's size, "stretch" or "center-crop" (contract/resize.md). least_images:
    devices warn when fewer of a class are stored; None: what `methods.amounts` knows of the method, 0: never.
    memory_budget: the most bytes that the planned peak of a program may have; what must be is then recomputed
    in the backward pass. micro_batch: samples that a step's gradient is worked out for at a time.
    kernel_costs: a cost table of `tune-kernels` that chooses the convolutions' forms; None: the toolkit's own
    for the target's processor.
    cut_points: so many variants of the step, which a device runs where the mask is empty below them (`cuts`).
    float16: programs of a request, step or teacher, that compute in float16 (`mixed`).
    """

    target: str = "pi5"
    method: str = "clue"
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    batch: int = 32
    tuned_batch: int | None = None
    runtimes: tuple[str, ...] | None = None
    float16_predict: bool = False
    guard_per_class: int = 8
    guard_drop: float = 20.0
    kept_at_least: float | None = None
    name: str | None = None
    licence: str = "see the model's own licence"
    fit: str = "stretch"
    least_images: int | None = None
    memory_budget: int | None = None
    micro_batch: int | None = None
    kernel_costs: Path | None = None
    cut_points: int = 0
    float16: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 2 <= self.batch <= 4096:
            raise ClueError(f"--batch must be from 2 to 4096, not {self.batch}")
        if self.name is not None and not re.fullmatch(r"\w[\w .+-]*", self.name):
            raise ClueError(
                f"--name {self.name!r} must be letters, digits, spaces, dots, plus or minus signs: stores "
                "are named after it"
            )
        if self.kept_at_least is not None and not 0 <= self.kept_at_least <= 100:
            raise ClueError(f"--kept-at-least must be from 0 to 100 percent, not {self.kept_at_least}")
        if self.fit not in FITS:
            raise unknown("--fit", self.fit, FITS)
        if self.least_images is not None and self.least_images < 0:
            raise ClueError(f"--least-images must be at least 0, not {self.least_images}")
        if self.memory_budget is not None and self.memory_budget < 1:
            raise ClueError(f"--memory-budget must be above 0 bytes, not {self.memory_budget}")
        if self.micro_batch is not None and self.micro_batch < 1:
            raise ClueError(f"--micro-batch must be at least 1, not {self.micro_batch}")
        if self.tuned_batch is not None and self.tuned_batch < 1:
            raise ClueError(f"--tuned-batch must be at least 1, not {self.tuned_batch}")


def export(
    module: nn.Module,
    spec: ModelSpec,
    out: Path,
    recipe: ExportRecipe = ExportRecipe(),
    *,
    replace: bool = False,
    progress: Progress | None = None,
    train: Samples | None = None,
    guard: Samples | None = None,
    sign: Callable[[bytes], bytes] | None = None,
) -> Path:
    """Write the bundle `out` (a folder, by custom NAME.clue) and return its path.

    Parameters of `module` that do not require a gradient are frozen (`models.train_only` picks by name):
    state without gradient, momentum or mask, and backward passes stop where nothing in front needs them.
    `progress(stage, done, total)` is told of each program. train: the whole training set, for a method whose
    bundle ships what it found there. guard: images that the model never saw, of which some go into the bundle
    (bundle/guard.py). sign: makes the publisher's signature of the manifest (`bundle.signature.signer`).
    Raises ClueError for anything the user can put right; nothing is half written.
    """
    import numpy as np
    from safetensors.numpy import save as serialise

    import exporters
    from clue_mobile import methods, programs
    from clue_mobile.bundle import golden as golden_vectors
    from clue_mobile.bundle import guard as guards
    from clue_mobile.bundle import manifest as manifests
    from clue_mobile.bundle.writer import BundleWriter
    from clue_mobile.flat import FlatModel
    from clue_mobile.kernel_costs import table
    from clue_mobile.lowering import choice
    from clue_mobile.methods import amounts, caution
    from exporters import targets
    from exporters.base import Source

    if spec.input_shape[0] not in (1, 3):
        raise ClueError(
            f"{spec.model} takes images of {spec.input_shape[0]} channels: a device's pictures have 1 (grey) "
            "or 3 (RGB)"
        )
    target = targets.get(recipe.target)
    runtimes = {name: exporters.get(name) for name in targets.runtimes(target, recipe.runtimes or ())}
    forms = table.choosers(list(runtimes), recipe.target, recipe.kernel_costs)
    config = methods.configure(recipe.method, recipe.hyperparameters)
    model = FlatModel(module, spec)
    float16 = recipe.float16_predict
    plan = programs.build(
        model,
        recipe.method,
        config,
        recipe.batch,
        float16=float16,
        train=train,
        micro=recipe.micro_batch,
        cut_points=recipe.cut_points,
        halved=recipe.float16,
    )
    single = [name for name, exporter in runtimes.items() if not exporter.FLOAT16]
    if recipe.float16 and single:
        raise ClueError(
            f"--float16 {recipe.float16[0]}: {', '.join(single)} would be left without this program: name "
            "runtimes that compute in float16, such as --runtime onnx"
        )
    if float16 and not any(exporter.FLOAT16 for exporter in runtimes.values()):
        raise ClueError(f"--float16-predict: none of the runtimes {', '.join(runtimes)} computes in float16")
    tell = progress or (lambda stage, done, total: None)

    with BundleWriter(out, replace) as writer:
        packed = {key: vector.numpy() for key, vector in model.pack().items()}
        for key, vector in packed.items():
            if vector.dtype != np.float32:
                raise ClueError(f"the {key} of {spec.model} are {vector.dtype}: call module.float() first")
            if not np.isfinite(vector).all():
                raise ClueError(f"the {key} of {spec.model} are not all finite: the training has diverged")
        weights = writer.add("weights.safetensors", serialise(packed))
        for name, tensors in plan.tensors.items():
            writer.add(name, serialise(dict(tensors)))
        count = itertools.count()
        # golden vectors, each runtime, and the runtime/ folder
        total = len(plan.programs) * (1 + len(runtimes.keys() - exporters.ADDITIONS))
        total += len(runtimes.keys() & exporters.ADDITIONS) + 1

        def step(stage: str, program: str) -> None:
            tell(f"{stage} {program}", next(count), total)

        golden = {}
        for program in plan.programs:
            step("golden", program.name)
            made = golden_vectors.make(model, plan, program)
            golden[program.name] = (
                made,
                writer.add(f"golden/{program.name}.safetensors", serialise(made.tensors)),
            )
        results, extra = {}, {}
        known = caution.caution(model, config)
        notes = [known] if known else []
        for runtime, exporter in runtimes.items():
            chosen = [each for each in plan.programs if exporter.FLOAT16 or not each.float16]
            if runtime in exporters.ADDITIONS:
                chosen = []  # it makes files of its own, from the model and the recipe
            traced = programs.trace_all(
                chosen,
                overrides=choice.overrides(forms[runtime], exporter.OVERRIDES),
                passes=exporter.PASSES,
                rules=exporter.MEMORY,
                budget=recipe.memory_budget,
            )
            converted = exporter.convert(traced, Source(model, plan), functools.partial(step, runtime))
            results[runtime] = manifests.add_runtime(writer, runtime, traced, converted)
            notes += converted.notes
            extra.update(exporter.versions())
        entries = {name: manifests.program_entry(name, results, *made) for name, made in golden.items()}
        tell("runtime", next(count), total)
        for name, data in target.payload():
            writer.add(f"runtime/{name}", data)
        guarded = None
        if guard is not None:
            guarded = guards.add(writer, model, *guard, recipe.guard_per_class, recipe.guard_drop)
        manifest = manifests.assemble(
            name=recipe.name or out.name.removesuffix(".clue"),
            target=recipe.target,
            model=model,
            method=recipe.method,
            config=config,
            batch=recipe.batch,
            tuned_batch=recipe.tuned_batch or recipe.batch,
            recipe=plan,
            programs=entries,
            weights=weights,
            files=writer.rows,
            extra_versions=extra,
            licence=recipe.licence,
            fit=recipe.fit,
            least_images=amounts.least(recipe.method) if recipe.least_images is None else recipe.least_images,
            notes=notes,
            guarded=guarded,
            kept_at_least=_kept(recipe) or None,
        )
        return writer.commit(manifest, sign)


def _kept(recipe: ExportRecipe) -> float:
    if recipe.kept_at_least is None:
        return KEPT_AT_LEAST.get(recipe.method, 0.0)
    return recipe.kept_at_least
