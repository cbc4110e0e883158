"""The Kotlin that the documentation shows, as files for the compiler: what is copied must be what compiles.

    snippets.py OUT [DOCUMENT...]

writes OUT/docs/NAME_N.kt for each block of Kotlin in the documents (docs/android.md, android_demo/README.md):
its imports, then the rest as the body of a function that has what a reader's own code has (a context, an
image, a request's number, a way to show). Blocks for Gradle (their first line names the file) become
OUT/scripts/NAME_N.gradle.kts, for the parser; the compiler would take them for the app's. A block that begins
with "// not compiled" is left out.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = (ROOT / "docs/android.md", ROOT / "android_demo/README.md")
NOT_COMPILED = "// not compiled"
GIVEN = """\
private fun show(vararg facts: Any?): Unit = println(facts.toList())

@Suppress("unused", "UNUSED_VARIABLE", "UNUSED_PARAMETER", "RedundantSuspendModifier")
internal suspend fun {name}(
    context: android.content.Context,
    contentResolver: android.content.ContentResolver,
    uri: android.net.Uri,
    requestId: Long,
) {{
{body}}}
"""


def blocks(document: str) -> list[str]:
    """The fenced blocks of Kotlin, without the indentation that they have inside a list."""
    found = re.findall(r"^( *)```kotlin\n(.*?)^ *```$", document, flags=re.MULTILINE | re.DOTALL)
    return ["".join(line.removeprefix(indent) for line in text.splitlines(True)) for indent, text in found]


def source(block: str, name: str) -> str:
    """The file for a block of the app's code."""
    lines = block.splitlines(True)
    imports = [line for line in lines if line.startswith("import ")]
    body = "".join(f"    {line}" if line.strip() else line for line in lines if line not in imports)
    return "".join([*imports, "\n", GIVEN.format(name=name, body=body)])


def main(out: Path, documents: tuple[Path, ...]) -> None:
    """See the top of this file."""
    code, scripts = out / "docs", out / "scripts"
    for folder in (code, scripts):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    compiled = 0
    for document in documents:
        for number, block in enumerate(blocks(document.read_text())):
            name = f"{document.stem.lower()}_{number}"
            if block.startswith(NOT_COMPILED):
                continue
            if ".gradle.kts" in block.splitlines()[0]:
                (scripts / f"{name}.gradle.kts").write_text(block)
            else:
                (code / f"{name}.kt").write_text(source(block, name))
                compiled += 1
    if not compiled:
        sys.exit(f"no Kotlin in {', '.join(str(path) for path in documents)}: nothing would be checked")


if __name__ == "__main__":
    main(Path(sys.argv[1]), tuple(Path(each) for each in sys.argv[2:]) or DOCUMENTS)
