"""The Kotlin of the documentation, taken out for the compiler."""

from __future__ import annotations

from pathlib import Path

import pytest
import snippets

DOCUMENT = """\
1. Do this:

   ```kotlin
   import a.b

   val c = b()
   ```

```kotlin
// settings.gradle.kts
include(":clue")
```

```kotlin
// not compiled
class Other
```

```sh
gradle build
```
"""


def test_a_block_becomes_a_function_a_script_stays_one(tmp_path: Path) -> None:
    document = tmp_path / "Some.md"
    document.write_text(DOCUMENT)
    out = tmp_path / "out"
    (out / "docs").mkdir(parents=True)
    (out / "docs/old.kt").write_text("from before")
    snippets.main(out, (document,))
    assert sorted(path.name for path in out.glob("*/*")) == ["some_0.kt", "some_1.gradle.kts"]
    text = (out / "docs/some_0.kt").read_text()
    assert text.startswith("import a.b\n\n")
    assert "internal suspend fun some_0(" in text
    assert "    val c = b()\n}\n" in text
    assert (out / "scripts/some_1.gradle.kts").read_text() == '// settings.gradle.kts\ninclude(":clue")\n'


def test_documents_without_kotlin_are_refused(tmp_path: Path) -> None:
    document = tmp_path / "none.md"
    document.write_text("nothing\n")
    with pytest.raises(SystemExit, match="no Kotlin"):
        snippets.main(tmp_path / "out", (document,))
