"""The runtime as a program uses it: a bundle, a store, and what can be done with them."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pi_runtime import engines, golden, queue
from pi_runtime import verify as _verify
from pi_runtime.answers import Answer, answers, check_choice
from pi_runtime.budget import Joules, check_energy, not_measured
from pi_runtime.bundle import Bundle
from pi_runtime.engine import Engine
from pi_runtime.errors import ClueError
from pi_runtime.estimate import estimate
from pi_runtime.forget import Control, RequestResult, carry_out, check_seed
from pi_runtime.golden import GoldenResult
from pi_runtime.options import Options
from pi_runtime.receipts.issuer import Issuer
from pi_runtime.request import Progress
from pi_runtime.serving import Server
from pi_runtime.store import BusyError, Generation, Store


class Runtime:
    """A bundle with its store. Use it from the thread that opened it; others may open the same store.

    >>> with Runtime.open("cifar.clue", "store") as runtime:  # doctest: +SKIP
    ...     runtime.add(images, "dog")
    ...     runtime.forget("dog")
    """

    def __init__(self, bundle: Bundle, store: Store, engine: Engine) -> None:
        self.bundle, self.store, self.engine = bundle, store, engine
        # Joules that the device has used, and its temperature; None: its own sensor.
        self.joules: Joules = not_measured
        self.celsius: Callable[[], float | None] | None = None
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
        folder = Path(store)
        return Runtime(bundle, Store(folder, bundle, policy, Issuer(folder, bundle)), chosen)

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

    # --- requests

    def submit(
        self,
        label: str | int | None = None,
        *,
        samples: Sequence[int] | None = None,
        seed: int | None = None,
        scalars: Mapping[str, float] | None = None,
        options: Options = Options(),
    ) -> int:
        """Queue a request for a class (all its stored samples) or for sample ids; returns the request's id.

        `seed` (below 2^53) is drawn when None, `scalars` replaces scalars of the method. All of it is frozen
        with the request. Raises ClueError for what is not known or out of range, a sample that an unfinished
        request has, an option that this device cannot keep.
        """
        if (label is None) == (samples is None):
            raise ClueError("a request names a class or sample ids: give one of them")
        aims = _verify.aims(self.bundle, "class" if samples is None else "samples", options)
        merged, checked = self.bundle.merged_scalars({**aims, **(scalars or {})}), check_seed(seed)
        check_energy(options, self.joules)
        if label is None:
            return self.store.create_request(
                "samples", None, checked, merged, list(samples or ()), options.as_dict()
            )
        index = self.bundle.label(label)
        found = self.store.sample_ids(index)
        if not found:
            raise ClueError(
                f"no samples of {self.bundle.classes[index]!r} are stored: add some first (clue-pi add)"
            )
        return self.store.create_request("class", index, checked, merged, found, options.as_dict())

    def run(
        self,
        request_id: int,
        *,
        progress: Callable[[Progress], None] | None = None,
        cancel: Callable[[], bool] | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> RequestResult:
        """Run a queued request, or let a paused one go on from its checkpoint, to the same bits.

        `cancel` and `stop` are asked between operations (an Event's `is_set` will do): the one ends the
        request as cancelled, the other pauses it. A check that fails ends it as failed, a budget or guard
        pauses it. Raises ClueError when it cannot run or something breaks; in every case but status done the
        old weights go on serving.
        """
        control = Control(progress, cancel, stop, self.joules, self.celsius)
        return carry_out(self.bundle, self.engine, self.store, request_id, control)

    def forget(
        self,
        label: str | int | None = None,
        *,
        samples: Sequence[int] | None = None,
        seed: int | None = None,
        scalars: Mapping[str, float] | None = None,
        verify_at_most: float | None = None,
        options: Options = Options(),
        progress: Callable[[Progress], None] | None = None,
        cancel: Callable[[], bool] | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> RequestResult:
        """`submit` and `run` at once, before what is queued; nothing is queued when another request runs.

        `verify_at_most` is the option accuracy_at_most: the forget accuracy in percent to come down to.
        """
        if verify_at_most is not None:
            options = dataclasses.replace(options, accuracy_at_most=verify_at_most)
        with self.store.exclusive():
            request_id = self.submit(label, samples=samples, seed=seed, scalars=scalars, options=options)
            return self.run(request_id, progress=progress, cancel=cancel, stop=stop)

    def run_next(self, **watched: Any) -> RequestResult | None:
        """Run the request whose turn it is (see `queue.next_request`); None when there is none.

        Arguments and errors are those of `run`.
        """
        request_id = queue.next_request(self)
        return None if request_id is None else self.run(request_id, **watched)

    def resume(self, request_id: int, **watched: Any) -> RequestResult:
        """Let a paused request go on. Arguments are those of `run`.

        Raises ClueError when it is not paused.
        """
        status = self.status(request_id)
        if status != "paused":
            raise ClueError(f"request {request_id} is {status}: only a paused one can be resumed")
        return self.run(request_id, **watched)

    def status(self, request_id: int) -> str:
        """The state of a request; one whose process died is paused. Raises ClueError for an unknown id."""
        if self.store.request(request_id).status in ("running", "verifying"):
            with contextlib.suppress(BusyError), self.store.exclusive(wait_s=0.0):
                pass  # who gets the lock pauses what nobody runs any longer
        return self.store.request(request_id).status

    def retry(self, request_id: int, seed: int | None = None) -> int:
        """Queue a request like one that has ended, by default with a new seed; returns the new one's id.

        Raises ClueError when it has not ended, or its samples were erased.
        """
        old = self.store.request(request_id)
        if old.status not in ("done", "failed", "cancelled"):
            raise ClueError(
                f"request {request_id} is {old.status}: resume it, or cancel it before you retry it"
            )
        samples = self.store.samples_of(request_id)
        if len(samples) != old.samples:
            raise ClueError(
                f"the samples of request {request_id} were erased: add them again and forget anew"
            )
        return self.store.create_request(
            old.kind, old.label, check_seed(seed), old.scalars, samples, old.options, retry_of=request_id
        )

    def cancel(self, request_id: int) -> bool:
        """Cancel a request; True when it has ended, False when the process that runs it was asked to end it.

        Raises ClueError when it has ended already.
        """
        if self.status(request_id) in ("running", "verifying") and self.store.ask_cancel(request_id):
            return False
        self.store.cancel(request_id)
        return True

    def dry_run(
        self,
        label: str | int | None = None,
        *,
        samples: Sequence[int] | None = None,
        scalars: Mapping[str, float] | None = None,
        probe: bool = True,
    ) -> dict[str, Any]:
        """What `forget` would take at most, without running it.

        Keys: samples, operations, runs {program: count}, flops, values_bytes (the arrays held meanwhile),
        planned_peak_bytes (values and the largest program), storage_bytes (the new weights),
        checkpoint_bytes, storage_peak_bytes; time_s and energy_j with time_source and energy_source: from the
        records of this device, else from a short `probe` of the programs, else null. Raises ClueError for an
        unknown class or scalar.
        """
        merged = self.bundle.merged_scalars(scalars)
        n = len(samples) if samples is not None else len(self.store.sample_ids(self.bundle.label(label or 0)))
        sizes = {request.id: request.samples for request in self.store.requests()}
        return estimate(self.bundle, self.engine, n, merged, self.store.records(), sizes, probe)

    # --- serving

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits [N, K] of images, uint8 [N, H, W, C], by the weights that serve at this moment.

        Raises ClueError for another type or shape, or weights that were changed on the disk.
        """
        self._check_images(images)
        return self._server.logits(images, self.store.serving())

    def classify(self, images: NDArray[np.uint8], forgotten: str = "tell") -> list[Answer]:
        """The class of each image, uint8 [N, H, W, C], by the weights that serve at this moment.

        `forgotten` is what happens where the best class was forgotten: "tell" answers it with forgotten=True,
        "hide" answers the best other class, "reject" answers none. Raises ClueError for another choice, and
        as `predict` does.
        """
        gone = set(self.store.forgotten())
        check_choice(forgotten, self.bundle.classes, gone)
        return answers(self.predict(images), self.bundle.classes, gone, forgotten)

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

    def _check_images(self, images: NDArray[np.uint8]) -> None:
        channels, height, width = self.bundle.input_shape
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (height, width, channels):
            raise ClueError(
                f"images are {images.dtype} {list(images.shape)}: "
                f"they must be uint8 [N, {height}, {width}, {channels}]"
            )
