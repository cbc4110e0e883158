"""The store on the device: samples, requests, generations of weights, receipts, cost records."""

from __future__ import annotations

from pi_runtime.store.database import BusyError as BusyError
from pi_runtime.store.database import now as now
from pi_runtime.store.generations import Generation as Generation
from pi_runtime.store.requests import Request as Request
from pi_runtime.store.requests import TransitionError as TransitionError
from pi_runtime.store.samples import Sample as Sample
from pi_runtime.store.seal import SealPlan as SealPlan
from pi_runtime.store.store import Store as Store

__all__ = [
    "BusyError",
    "Generation",
    "Request",
    "Sample",
    "SealPlan",
    "Store",
    "TransitionError",
    "now",
]
