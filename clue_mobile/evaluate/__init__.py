"""What a classifier still knows after forgetting: accuracies, a membership attack, energies."""

from clue_mobile.evaluate.metrics import (
    Predict,
    Scores,
    accuracy,
    energy,
    membership_attack,
    predict_all,
    score,
    softmax,
)

__all__ = [
    "Predict",
    "Scores",
    "accuracy",
    "energy",
    "membership_attack",
    "predict_all",
    "score",
    "softmax",
]
