"""The runtime as a program uses it: a bundle, a store, and what can be done with them."""

from __future__ import annotations

import collections
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pi_runtime import engines, golden
from pi_runtime import plan as plans
from pi_runtime.bundle import Bundle
from pi_runtime.engine import Engine
from pi_runtime.errors import ClueError
from pi_runtime.forget import Order, RequestResult, carry_out, check_seed
from pi_runtime.golden import GoldenResult
from pi_runtime.request import Progress
from pi_runtime.serving import Server
from pi_runtime.store import Generation, Store
from pi_runtime.values import swapped_values


class Runtime:
    """A bundle with its store. Use it from the thread that opened it; others may open the same store.

    >>> with Runtime.open("cifar.clue", "store") as runtime:  # doctest: +SKIP
    ...     runtime.add(images, "dog")
    ...     runtime.forget("dog")
    """

    def __init__(self, bundle: Bundle, store: Store, engine: Engine) -> None:
        self.bundle, self.store, self.engine = bundle, store, engine
        self._server = Server(bundle, engine)

    @staticmethod
    def open(
        bundle: Path | str,
        store: Path | str,
        *,
        threads: int | None = None,
        verify: bool = True,
        engine: str | None = None,
        policy: str = "refuse",
    ) -> Runtime:
        """Open a bundle folder and its store, which is created when it is not there.

        `threads` inside an operator: all usable processors when None. `verify` checks every file's SHA-256.
        `engine`: onnx or litert; when None the first of these that the bundle has programs for and that is
        installed. `policy`: refuse, serve or pending, when the bundle is a new one whose weights bring back
        what was forgotten. Raises ClueError for a damaged or newer bundle, a store of another bundle, an
        engine that the bundle or this computer lacks.
        """
        opened = Bundle.open(bundle, verify)
        return Runtime.for_bundle(opened, store, threads=threads, engine=engine, policy=policy)

    @staticmethod
    def for_bundle(
        bundle: Bundle,
        store: Path | str,
        *,
        threads: int | None = None,
        engine: str | None = None,
        policy: str = "refuse",
    ) -> Runtime:
        """`open` for a bundle that is open already."""
        chosen = engines.choose(bundle, engine, threads)
        return Runtime(bundle, Store(Path(store), bundle, policy), chosen)

    def close(self) -> None:
        """Close the store."""
        self.store.close()

    def __enter__(self) -> Runtime:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add(self, images: NDArray[np.uint8], label: str | int) -> list[int]:
        """Store samples of a class, uint8 [N, H, W, C] at the model's input size.

        Returns the ids of the new ones: an image that is there with this label is not stored again. Raises
        ClueError for an unknown class, another type or shape, or a failing disk; then none is stored.
        """
        index = self.bundle.label(label)
        self._check_images(images)
        return self.store.add(images, index)

    def forget(
        self,
        label: str | int,
        *,
        seed: int | None = None,
        scalars: Mapping[str, float] | None = None,
        verify_at_most: float | None = None,
        progress: Callable[[Progress], None] | None = None,
        cancel: Callable[[], bool] | None = None,
    ) -> RequestResult:
        """Forget a class with its stored samples; the new weights serve once they are verified and on disk.

        `seed` (below 2^53) is drawn when None, `scalars` replaces scalars of the method, `verify_at_most` the
        bundle's limit for the forget accuracy in percent. `cancel` is asked between operations (an Event's
        `is_set` will do). A check that fails ends the request as failed. Raises ClueError when it cannot run
        or something breaks; in every case but status done the old weights go on serving.
        """
        return carry_out(
            self.bundle,
            self.engine,
            self.store,
            self._order(label, seed, scalars, verify_at_most, progress, cancel),
        )

    def dry_run(
        self, label: str | int, *, scalars: Mapping[str, float] | None = None
    ) -> dict[str, int | dict[str, int]]:
        """What `forget` would do at most, without running it.

        Keys: samples, operations, runs {program: count}, flops, values_bytes (the arrays held meanwhile),
        planned_peak_bytes (values and the largest program), storage_bytes (the new weights). Raises
        ClueError for an unknown class or scalar.
        """
        order = self._order(label, 0, scalars, None, None, None)
        bundle, n = self.bundle, len(self.store.sample_ids(order.label))
        runs: collections.Counter[str] = collections.Counter()
        if n:
            for operation in plans.operations(bundle.plan, n, order.scalars, order.seed):
                if isinstance(operation, plans.Run):
                    runs[operation.node.program] += 1
                elif isinstance(operation, plans.Stop) and operation.due:
                    runs[operation.node.program] += self._batches(
                        operation.node.program, min(operation.node.samples, n)
                    )
            runs["predict"] += 2 * self._batches("predict", n)
        swapped = swapped_values(bundle)
        values = sum(
            4 * math.prod(value.shape) * (n if value.role == "cache" else 1 + (name in swapped))
            for name, value in bundle.values.items()
        )
        return {
            "samples": n,
            "operations": plans.total(bundle.plan, n, order.scalars) if n else 0,
            "runs": dict(runs),
            "flops": sum(bundle.programs[name].flops * count for name, count in runs.items()),
            "values_bytes": values,
            "planned_peak_bytes": values
            + max((bundle.programs[name].peak_bytes for name in runs), default=0),
            "storage_bytes": bundle.weights.bytes,
        }

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits [N, K] of images, uint8 [N, H, W, C], by the weights that serve at this moment.

        Raises ClueError for another type or shape, or weights that were changed on the disk.
        """
        self._check_images(images)
        return self._server.logits(images, self.store.serving())

    @property
    def forgotten(self) -> list[str]:
        """The names of the classes that were forgotten."""
        return [self.bundle.classes[label] for label in self.store.forgotten()]

    @property
    def serving(self) -> Generation:
        """The weights that serve now."""
        return self.store.serving()

    def log(self) -> list[dict[str, Any]]:
        """All cost records, oldest first."""
        return self.store.records()

    def check(self) -> list[GoldenResult]:
        """Compare every program on this device with the bundle's golden outputs."""
        return golden.check(self.bundle, self.engine)

    def _batches(self, program: str, n: int) -> int:
        return -(-n // self.bundle.programs[program].batch)

    def _order(
        self,
        label: str | int,
        seed: int | None,
        scalars: Mapping[str, float] | None,
        verify_at_most: float | None,
        progress: Callable[[Progress], None] | None,
        cancel: Callable[[], bool] | None,
    ) -> Order:
        limit = self.bundle.forget_accuracy_at_most if verify_at_most is None else verify_at_most
        if not 0 <= limit <= 100:
            raise ClueError(f"verify_at_most is {limit}: it must be from 0 to 100 percent")
        index, merged = self.bundle.label(label), self.bundle.merged_scalars(scalars)
        return Order(index, check_seed(seed), merged, limit, progress, cancel)

    def _check_images(self, images: NDArray[np.uint8]) -> None:
        channels, height, width = self.bundle.input_shape
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (height, width, channels):
            raise ClueError(
                f"images are {images.dtype} {list(images.shape)}: "
                f"they must be uint8 [N, {height}, {width}, {channels}]"
            )
