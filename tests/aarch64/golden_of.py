"""Prints the golden results of some programs of a bundle: golden_of.py BUNDLE ENGINE PROGRAM..."""

from __future__ import annotations

import dataclasses
import json
import sys

from pi_runtime import Bundle, engines, golden

bundle = Bundle.open(sys.argv[1])
chosen = {name: bundle.programs[name] for name in sys.argv[3:]}
results = golden.check(
    dataclasses.replace(bundle, programs=chosen), engines.choose(bundle, sys.argv[2], threads=1)
)
print(json.dumps([dataclasses.asdict(result) for result in results]))
