"""What accuracies alone cannot tell: whether a class was forgotten or only its output was hidden.

`extended` measures a PyTorch module in one pass: the usual scores and, beside them, named attacks, energies,
the linear probe, the relearn cost and the confusion matrix. docs/evaluation.md has the formulas.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import nn

from clue_mobile.data import Dataset
from clue_mobile.evaluate import attacks
from clue_mobile.evaluate.eager import features, predictor
from clue_mobile.evaluate.metrics import (
    MIA_LIMIT,
    Outputs,
    Scores,
    check_classes,
    energy,
    outputs,
    scores_of,
)
from clue_mobile.evaluate.probe import drawn, linear_probe
from clue_mobile.evaluate.relearn import LIMIT, relearn
from clue_mobile.spec import ModelSpec

Told = Callable[[str, int, int], None]
"""Called with (what is measured, done, total)."""


def deep_scores(
    module: nn.Module,
    spec: ModelSpec,
    dataset: Dataset,
    forget_class: int,
    *,
    seed: int,
    original_accuracy: float,
    mia_limit: int = MIA_LIMIT,
    progress: Told = lambda what, done, total: None,
) -> dict[str, Any]:
    """Measure `module` (left as it is) on a data set whose class number `forget_class` it was to forget.

    original_accuracy: in percent, of the original model on the *test* images of the class: what relearning
    has to come near. Accuracies, attacks and AUROCs are in percent:

    - `forget_train`, `forget_test`: accuracy on the training and on the test images of the class;
    - `attacks`: `confidence_svc`, `entropy_svc`, `loss_auc` (`clue_mobile.evaluate.attacks`);
    - `energy_auroc`: how often a forget image's energy exceeds a retain image's, training images;
    - `probe`: how many test images of the class a linear probe finds; `probe_overall`: its accuracy;
      `probe_wrongly`: how many test images of other classes it takes for the class;
    - `relearn_steps`: an integer, or None where `relearn_limit` came first; `relearn_retain`: accuracy on the
      test images of the other classes afterwards;
    - `per_class`: accuracy on the test images of each class, K numbers;
    - `confusion`: test images, a row for each true class and a column for each output: K x K, or wider
      where the model has more outputs than classes.

    Raises ClueError as `metrics.score`, `probe.linear_probe` and `relearn.relearn` do.
    """
    return extended(
        module,
        spec,
        dataset,
        forget_class,
        seed=seed,
        original_accuracy=original_accuracy,
        mia_limit=mia_limit,
        progress=progress,
    )[1]


def extended(
    module: nn.Module,
    spec: ModelSpec,
    dataset: Dataset,
    forget_class: int,
    *,
    seed: int,
    original_accuracy: float | None = None,
    mia_limit: int = MIA_LIMIT,
    progress: Told = lambda what, done, total: None,
) -> tuple[Scores, dict[str, Any]]:
    """The usual scores and those of `deep_scores`, the images predicted once for both.

    original_accuracy: None for the original model itself, whose accuracy it then is.
    """
    check_classes(dataset, forget_class)
    found = outputs(
        predictor(module, spec), dataset, lambda done, total: progress("predictions", done, total)
    )
    scores = scores_of(found, dataset, forget_class, seed, mia_limit)
    return scores, deepen(
        module,
        spec,
        dataset,
        forget_class,
        found,
        scores,
        seed=seed,
        original_accuracy=scores.forget_test if original_accuracy is None else original_accuracy,
        mia_limit=mia_limit,
        progress=progress,
    )


def deepen(
    module: nn.Module,
    spec: ModelSpec,
    dataset: Dataset,
    forget_class: int,
    found: Outputs,
    scores: Scores,
    *,
    seed: int,
    original_accuracy: float,
    mia_limit: int = MIA_LIMIT,
    progress: Told = lambda what, done, total: None,
) -> dict[str, Any]:
    """What `deep_scores` gives, of logits and scores that are there already.

    They may be an exported program's, while `module`, with the same weights, is what the probe looks into and
    what relearns.
    """
    train, test = dataset.train, dataset.test
    forget, retain, unseen, others = found.parts(dataset, forget_class)
    learned = drawn(train, len(dataset.classes), seed)
    progress("linear probe", 0, 1)
    probe = linear_probe(
        (features(module, spec, learned.images), learned.labels),
        (features(module, spec, test.images), test.labels),
        forget_class,
    )
    again = relearn(
        module,
        spec,
        train.of_class(forget_class),
        test,
        forget_class,
        original_accuracy=original_accuracy,
        seed=seed,
        progress=lambda done, total: progress("relearning", done, total),
    )
    return {
        "forget_train": scores.ua,
        "forget_test": scores.forget_test,
        "attacks": {
            "confidence_svc": scores.mia,
            "entropy_svc": attacks.entropy_svc(retain, others, forget, seed=seed, limit=mia_limit),
            "loss_auc": attacks.loss_auc(forget, unseen),
        },
        "energy_auroc": attacks.auroc(energy(forget[0]), energy(retain[0])),
        "probe": probe.forget,
        "probe_overall": probe.overall,
        "probe_wrongly": probe.wrongly,
        "relearn_steps": again.steps,
        "relearn_limit": LIMIT,
        "relearn_retain": again.retain_test,
        "per_class": list(scores.per_class),
        "confusion": confusion(found, dataset),
    }


def confusion(found: Outputs, dataset: Dataset) -> list[list[int]]:
    """How many test images of each class (rows) were given each output (columns)."""
    given, labels = found.test.argmax(axis=-1), dataset.test.labels
    counts = np.zeros((len(dataset.classes), found.test.shape[1]), dtype=np.int64)
    np.add.at(counts, (labels, given), 1)
    return [[int(count) for count in row] for row in counts]
