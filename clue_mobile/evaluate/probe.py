"""Is the class still there? A linear probe on the features in front of the last linear layer.

After Alain and Bengio, Understanding intermediate layers using linear classifier probes, 2016,
arXiv:1610.01644: a new linear classifier is trained on the frozen features. Where it finds the forgotten
class, the model still tells that class from the others, whatever its own last layer says.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from clue_mobile.data import Split
from clue_mobile.errors import ClueError

PROBE_IMAGES = 5000
"""The most training images that a probe learns from, the same number of each class where there are enough."""

Features = npt.NDArray[np.floating]


class Probe(NamedTuple):
    """In percent, on test images: `forget` is how many of the forgotten class the probe gives that class,
    `overall` its accuracy over all classes, `wrongly` how many of the other classes it gives the forgotten
    one."""

    forget: float
    overall: float
    wrongly: float


def drawn(train: Split, classes: int, seed: int, limit: int = PROBE_IMAGES) -> Split:
    """At most `limit` training images, `limit // classes` of each class or all it has, drawn with `seed`."""
    random = np.random.RandomState(seed)
    each = max(1, limit // classes)
    places = [random.permutation(np.flatnonzero(train.labels == label))[:each] for label in range(classes)]
    return train.select(np.sort(np.concatenate(places)))


def linear_probe(
    train: tuple[Features, npt.NDArray[np.int64]],
    test: tuple[Features, npt.NDArray[np.int64]],
    forget_class: int,
) -> Probe:
    """Fit multinomial logistic regression on standardised features and measure it on others.

    train, test: (features [N, D], labels [N]) of every class, the forgotten one too. Strength of the l2
    penalty 1 (scikit-learn's C), solved by L-BFGS, so that equal features give an equal answer. Raises
    ClueError where features are not finite, or either side lacks the forgotten class or all others.
    """
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        raise ClueError("the linear probe needs scikit-learn: pip install 'clue-mobile[export]'") from error
    for values, labels in (train, test):
        if not np.isfinite(values).all():
            raise ClueError("the model's features are not all finite: its weights have diverged")
        if not 0 < np.count_nonzero(labels == forget_class) < len(labels):
            raise ClueError("the linear probe needs images of the forgotten class and of others")
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=1000))
    probe.fit(train[0].astype(np.float64), train[1])
    given = probe.predict(test[0].astype(np.float64))
    of_class = test[1] == forget_class
    return Probe(
        forget=100.0 * float(np.mean(given[of_class] == forget_class)),
        overall=100.0 * float(np.mean(given == test[1])),
        wrongly=100.0 * float(np.mean(given[~of_class] == forget_class)),
    )
