"""One store, two runtimes: what the Swift one wrote pi_runtime reads, checks and carries on, and the other
way round. So files, database, encryption, receipts and records are the contract's, not one runtime's.

python tests/ios_demo/exchange.py FOLDER INSIDE COMMAND ...: works in FOLDER, which the command of the Swift
package, clue-swift, sees as INSIDE; COMMAND ... runs it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path

import numpy as np
from jsonschema import Draft202012Validator
from safetensors.numpy import load_file, save_file

from pi_runtime import Runtime
from pi_runtime.options import Options
from pi_runtime.receipts import check

SCENARIOS = Path(__file__).parents[2] / "contract" / "scenarios"


def main(folder: Path, inside: str, command: list[str]) -> None:
    """Raises AssertionError, or CalledProcessError where a command fails."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in ("bundle", "other"):
        shutil.copytree(SCENARIOS / "bundles" / "toy", folder / name)
    images = load_file(SCENARIOS / "images.safetensors")
    save_file({"images": images["cat"][:19]}, folder / "cat.safetensors")

    def swift(*words: str) -> None:
        subprocess.run([*command, words[0], f"{inside}/bundle", f"{inside}/store", *words[1:]], check=True)

    def opened() -> Runtime:
        return Runtime.open(folder / "bundle", folder / "store", threads=1)

    swift("add", "cat", f"{inside}/cat.safetensors")
    swift("forget", "cat", "5")
    with opened() as found, Runtime.open(folder / "other", folder / "alone", threads=1) as alone:
        assert found.add(images["cat"][:19], "cat") == [], "the samples are not the same ones"
        alone.add(images["cat"][:19], "cat")
        assert alone.forget("cat", seed=5).status == found.status(1) == "done"
        assert found.store.request(1).evidence == alone.store.request(1).evidence
        mine, other = load_file(alone.serving.path), load_file(found.serving.path)
        assert mine.keys() == other.keys()
        for key in mine:
            assert np.allclose(mine[key], other[key], rtol=1e-5, atol=1e-6), key
        schema = Draft202012Validator(
            json.loads(resources.files("contract").joinpath("cost.schema.json").read_text())
        )
        assert [record["phase"] for record in found.log()] == [record["phase"] for record in alone.log()]
        for record in found.log():
            schema.validate(record)
        found.add(images["dog"][:9], "dog")
        found.submit("dog", seed=6, options=Options(accuracy_at_most=100))
    swift("run")
    with opened() as found:
        assert found.status(2) == "done"
        assert found.forgotten == ["cat", "dog"]
        assert found.store.rollback(2) == [2]
        found.store.seal(1)
    swift("forget", "dog", "7")
    with opened() as found:
        assert [request.status for request in found.store.requests()] == ["done"] * 3
        assert found.forgotten == ["cat", "dog"]
        kinds = [json.loads(text)["kind"] for text in found.store.receipts()]
        assert kinds == ["forget", "forget", "rollback", "seal", "forget"]
        chain = check.read_folder(folder / "store" / "receipts")
        key = (folder / "store" / "receipt.pub").read_text().strip()
        last = check.check(chain["000005.json"], key=key, chain=chain, weights=found.serving.sha256)
        assert last.problem is None, last.problem
    print("two runtimes have used one store")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
