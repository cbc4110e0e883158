"""Three membership attacks by name, and the separation of two sets by one number (AUROC).

- `confidence_svc`: the MIA of the usual tables, `metrics.membership_attack` on the softmax probability of the
  true label;
- `entropy_svc`: the same attack on the entropy of the prediction, which needs no label. Both features are
  from Song and Mittal, Systematic Evaluation of Privacy Risks of Machine Learning Models, USENIX Security
  2021, arXiv:2003.10595, here with a support vector classifier in the place of a threshold;
- `loss_auc`: the loss threshold attack of Yeom et al., Privacy Risk in Machine Learning, CSF 2018,
  arXiv:1709.01604, over all thresholds: forget set against test images of the same class.

The first two tell how many images of the forget set pass for never trained on (100 is the goal where the
retrained model has it); the last is 50 where training left no trace in the loss.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from clue_mobile.errors import ClueError
from clue_mobile.evaluate.metrics import MIA_LIMIT, Labelled, membership_attack, softmax

Numbers = npt.NDArray[np.floating]


def auroc(positive: Numbers, negative: Numbers) -> float:
    """Return in percent how often a number of `positive` [N] exceeds one of `negative` [M].

    A tie counts half. That is the area under the receiver operating characteristic: 50 where the sets cannot
    be told apart. Raises ClueError for an empty set and for numbers that are not finite.
    """
    if not len(positive) or not len(negative):
        raise ClueError("an AUROC needs numbers of both kinds, and one kind has none")
    if not np.isfinite(positive).all() or not np.isfinite(negative).all():
        raise ClueError("an AUROC needs finite numbers: the model's weights have diverged")
    ordered = np.sort(negative)
    below, upto = (np.searchsorted(ordered, positive, side=side) for side in ("left", "right"))
    return 100.0 * float(np.mean(below + upto)) / (2 * len(negative))


def entropy(logits: Numbers, labels: npt.NDArray[np.int64] | None = None) -> npt.NDArray[np.float64]:
    """Return the entropy of softmax(logits) in nats, [N], from 0 to log K. The labels are not looked at."""
    shares = softmax(logits)
    return -np.sum(shares * np.log(np.where(shares > 0, shares, 1.0)), axis=-1)


def cross_entropy(logits: Numbers, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return -log softmax(logits) at each row's label, [N], in nats."""
    wide = logits.astype(np.float64)
    highest = wide.max(axis=-1)
    spread = np.log(np.exp(wide - highest[:, None]).sum(axis=-1))
    return highest + spread - np.take_along_axis(wide, labels[:, None], axis=1)[:, 0]


def entropy_svc(
    members: Labelled, others: Labelled, forgotten: Labelled, *, seed: int = 0, limit: int = MIA_LIMIT
) -> float:
    """`metrics.membership_attack` on the entropy of the prediction; the same arguments and errors."""
    return membership_attack(members, others, forgotten, seed=seed, limit=limit, feature=entropy)


def loss_auc(forgotten: Labelled, unseen: Labelled) -> float:
    """AUROC, in percent, of a low loss as the sign of membership: (logits [N, K], labels [N]) of the forget
    set against test images of the same class, which no model was trained on. Raises ClueError as `auroc`."""
    return auroc(-cross_entropy(*forgotten), -cross_entropy(*unseen))
