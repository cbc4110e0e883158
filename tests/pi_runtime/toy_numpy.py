"""The toy's data, weights and method in numpy, with the method's loops written out by hand."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pi_runtime import augment, rng

Floats = NDArray[np.float32]
K, PIXELS, BATCH = 3, 16, 4
SIZE = PIXELS * K + K
SCALARS = {
    "epochs": 3,
    "inner": 2,
    "lr": 0.02,
    "lr_last": 0.001,
    "decay": 0.5,
    "check_every": 2,
    "stop_at": 20,
}


# --- the data and the trained weights


def images(count: int, label: int, seed: int = 0) -> NDArray[np.uint8]:
    """uint8 [count, 4, 4, 1]: a class is bright in its row, all pixels are noisy."""
    draw = np.random.default_rng([seed, label])
    pixels = draw.integers(0, 100, (count, 4, 4, 1))
    pixels[:, label] += 120
    return pixels.astype(np.uint8)


def params() -> Floats:
    """The flat trained weights: W [16, K] by rows, then b [K]."""
    w = np.zeros((4, 4, K), np.float32)
    for k in range(K):
        w[k, :, k] = 1.0
    b = np.array([0.05, -0.05, 0.0], np.float32)
    return np.concatenate([w.reshape(-1), b])


FROZEN = np.array([2.0], np.float32)
IMPORTANCE = np.linspace(0.5, 1.5, SIZE, dtype=np.float32)


# --- the programs in numpy


def logits(p: Floats, frozen: Floats, x: Floats) -> Floats:
    return (x.reshape(len(x), PIXELS) @ p[: PIXELS * K].reshape(PIXELS, K) + p[PIXELS * K :]) * frozen


def softmax(z: Floats) -> Floats:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def note(p: Floats, frozen: Floats, x: Floats, noise: Floats, level: Floats) -> Floats:
    return softmax(logits(p, frozen, x + noise * level.reshape(-1, 1, 1, 1)))


def step(
    p: Floats, frozen: Floats, velocity: Floats, importance: Floats, x: Floats, y: Floats, teach: Floats,
    other: Floats, lr: float, decay: float,
) -> tuple[Floats, Floats, float]:  # fmt: skip
    flat = x.reshape(len(x), PIXELS)
    probability = softmax(logits(p, frozen, x))

    def gradient(error: Floats) -> Floats:
        return np.concatenate([(flat.T @ error).reshape(-1), error.sum(axis=0)]) / np.float32(BATCH)

    push = np.sign(gradient(probability - y))
    pull = gradient(probability - (teach + other) * np.float32(0.5))
    v = np.float32(decay) * velocity + push - pull
    loss = -np.mean(np.sum(np.log(probability) * y, axis=1))
    return p + np.float32(lr) * v * importance, v, float(loss)


def shrink(velocity: Floats, kick: Floats) -> tuple[Floats, float]:
    return velocity * np.float32(0.9) + kick * np.float32(0.01), float(np.abs(velocity).max())


# --- the method in numpy


class Reference:
    """A whole request; `stops` are the accuracies measured, `losses` the mean loss of each epoch."""

    def __init__(self, pixels: NDArray[np.uint8], label: int, seed: int, scalars: dict[str, float]) -> None:
        self.pixels, self.label, self.seed, self.scalars = pixels, label, seed, scalars
        self.n = len(pixels)
        self.params, self.velocity = params(), np.zeros(SIZE, np.float32)
        self.teach = np.zeros((self.n, K), np.float32)
        self.stops: list[float] = []
        self.losses: list[float] = []
        self.steps = 0

    def batches(self, order: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
        filled = list(order)
        while len(filled) % size:
            filled.append(filled[len(filled) - self.n])
        return [np.array(filled[i : i + size]) for i in range(0, len(filled), size)]

    def x(self, epoch: int | None, rows: NDArray[np.int64]) -> Floats:
        """The pixels of a batch, augmented when an epoch is given."""
        chosen = self.pixels[rows]
        if epoch is not None:
            chosen = augment.crop_flip(chosen, *rng.augmentation(self.seed, epoch, rows))
        return chosen.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)

    def accuracy(self, most: int) -> float:
        m = min(most, self.n)
        rows = np.array([i * self.n // m for i in range(m)])
        correct = np.argmax(logits(self.params, FROZEN, self.x(None, rows)), axis=1) == self.label
        return 100.0 * int(correct.sum()) / m

    def step(self, epoch: int, rows: NDArray[np.int64], repeat: int, lr: float, x: Floats) -> float:
        drawn = rng.integers(self.seed, 18, epoch, rows, (), K, block_offset=repeat)
        y = np.eye(K, dtype=np.float32)[[self.label] * BATCH]
        other = np.eye(K, dtype=np.float32)[drawn]
        self.params, self.velocity, loss = step(
            self.params, FROZEN, self.velocity, IMPORTANCE, x, y, self.teach[rows], other, lr,
            self.scalars["decay"],
        )  # fmt: skip
        self.steps += 1
        return loss

    def learn(self, epoch: int) -> bool:
        """One epoch; true when the stop was taken."""
        for rows in self.batches(np.arange(self.n), 4):
            noise = rng.normal(self.seed, 16, epoch, rows, (1, 4, 4))
            level = rng.uniform(self.seed, 17, epoch, rows, (), 0.1, 0.3)
            self.teach[rows] = note(self.params, FROZEN, self.x(epoch, rows), noise, level)
            self.steps += 1
        kick = rng.normal(self.seed, 19, epoch, [0], (SIZE,))[0]
        losses: list[float] = []
        try:
            for number, outer in enumerate(self.batches(rng.permutation(self.seed, epoch, self.n), 8)):
                for rows in (outer[:4], outer[4:]):
                    for repeat in range(int(self.scalars["inner"])):
                        x = self.x(epoch, rows)
                        losses.append(self.step(epoch, rows, repeat, self.scalars["lr"], x))
                self.velocity, _ = shrink(self.velocity, kick)
                self.steps += 1
                every = int(self.scalars["check_every"])
                if every and (number + 1) % every == 0:
                    self.stops.append(self.accuracy(7))
                    if self.stops[-1] <= self.scalars["stop_at"]:
                        return True
            return False
        finally:
            self.losses.append(float(np.mean(losses)))

    def run(self) -> Reference:
        for epoch in range(int(self.scalars["epochs"])):
            if self.learn(epoch):
                break
        for rows in self.batches(rng.permutation(self.seed, 0, self.n), 4):
            self.step(0, rows, 0, self.scalars["lr_last"], self.x(None, rows))
        return self
