"""Assembles an APK of the demo app without code: manifest, resources and assets checked by Android's tools.

    assemble.py ANDROID_JAR OUT [ASSETS]

aapt2 compiles and links the resources against the framework of ANDROID_JAR (see framework.py), and writes the
R classes that the compile check needs to OUT/r/MODULE; zipalign and apksigner align, sign and verify. The
code is Gradle's to add: no compiler to Dalvik's format is run here. Manifests are merged as far as these two
need it: permissions and components of the library go into the app's.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as Xml
import zipfile
from pathlib import Path

import framework

ROOT = Path(__file__).resolve().parents[2] / "android_demo"
LIBRARY, APP = ROOT / "clue", ROOT / "app"
NAMESPACE = "http://schemas.android.com/apk/res/android"
PERMISSIONS = {
    "android.permission.FOREGROUND_SERVICE",
    "android.permission.FOREGROUND_SERVICE_DATA_SYNC",
    "android.permission.POST_NOTIFICATIONS",
    "android.permission.RECEIVE_BOOT_COMPLETED",
    "android.permission.WAKE_LOCK",
}


def run(*words: str | Path) -> str:
    """What a tool prints. Ends the check with the tool's own words where it fails."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(str(word) for word in words[:2])} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def gradle(module: Path, name: str) -> str:
    """A setting such as minSdk = 26 or namespace = "x" of a module's build.gradle.kts."""
    found = re.findall(rf'\b{name} = "?([\w.]+)"?', (module / "build.gradle.kts").read_text())
    if len(found) != 1:
        sys.exit(f"{module}/build.gradle.kts must set {name} once, not {len(found)} times")
    return str(found[0])


def merged_manifest(out: Path) -> Path:
    """The app's manifest with what the library's adds, and the package that Gradle would write."""
    Xml.register_namespace("android", NAMESPACE)
    app = Xml.parse(APP / "src/main/AndroidManifest.xml")
    root, library = app.getroot(), Xml.parse(LIBRARY / "src/main/AndroidManifest.xml").getroot()
    root.set("package", gradle(APP, "namespace"))
    application = root.find("application")
    assert application is not None
    for entry in library:
        if entry.tag == "application":
            application.extend(entry)
        else:
            root.insert(0, entry)
    path = out / "AndroidManifest.xml"
    app.write(path, xml_declaration=True, encoding="utf-8")
    return path


def link(jar: Path, out: Path, assets: Path | None) -> Path:
    """An APK of resources, manifest and assets, linked against the framework in `jar`."""
    platform = out / f"{jar.stem}.apk"
    if not platform.exists():
        framework.main(jar, platform)
    compiled = []
    for module in (LIBRARY, APP):
        compiled.append(out / f"{module.name}.flata")
        run("aapt2", "compile", "--dir", module / "src/main/res", "-o", compiled[-1])
    sdk = ["--min-sdk-version", gradle(APP, "minSdk"), "--target-sdk-version", gradle(APP, "targetSdk")]
    names = ["--extra-packages", gradle(LIBRARY, "namespace"), "--java", out / "java"]
    version = ["--version-code", "1", "--version-name", "0.1.0"]
    extra = [] if assets is None else ["-A", assets]
    apk = out / "unsigned.apk"
    manifest = ["--manifest", merged_manifest(out)]
    words = [*manifest, *sdk, *names, *version, *extra, "--auto-add-overlay"]
    run("aapt2", "link", "-o", apk, "-I", platform, *words, *compiled)
    for module in (LIBRARY, APP):
        package = gradle(module, "namespace").replace(".", "/")
        place = out / "r" / module.name / package
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(out / "java" / package / "R.java", place)
    return apk


def sign(apk: Path, out: Path) -> Path:
    """The APK aligned and signed with a key made for this check."""
    key, aligned, signed = out / "check.keystore", out / "aligned.apk", out / "check.apk"
    key.unlink(missing_ok=True)
    of_key = ["-keystore", key, "-storepass", "android", "-keypass", "android", "-alias", "check"]
    kind = ["-keyalg", "RSA", "-keysize", "2048", "-dname", "CN=check", "-validity", "1"]
    run("keytool", "-genkeypair", *of_key, *kind)
    run("zipalign", "-f", "-p", "4", apk, aligned)
    run("zipalign", "-c", "-p", "4", aligned)
    words = ["--ks", key, "--ks-pass", "pass:android", "--min-sdk-version", gradle(APP, "minSdk")]
    run("apksigner", "sign", *words, "--out", signed, aligned)
    run("apksigner", "verify", "--min-sdk-version", gradle(APP, "minSdk"), signed)
    return signed


def check(apk: Path, assets: Path | None) -> None:
    """What a person would look for in the APK."""
    badging = run("aapt2", "dump", "badging", apk)
    found = set(re.findall(r"uses-permission: name='([^']+)'", badging))
    if found != PERMISSIONS:
        sys.exit(
            f"the app asks for {sorted(found)}, expected {sorted(PERMISSIONS)}: it must never have INTERNET"
        )
    sdk = (f"sdkVersion:'{gradle(APP, 'minSdk')}'", f"targetSdkVersion:'{gradle(APP, 'targetSdk')}'")
    for line in (*sdk, "launchable-activity"):
        if line not in badging:
            sys.exit(f"the APK lacks {line}:\n{badging}")
    tree = run("aapt2", "dump", "xmltree", "--file", "AndroidManifest.xml", apk)
    app, library = (
        APP / "src/main/kotlin/io/cluemobile/demo",
        LIBRARY / "src/main/kotlin/io/cluemobile/android",
    )
    folders = {"activity": app, "application": app, "service": library}
    for element in Xml.parse(apk.parent / "AndroidManifest.xml").iter():
        name = element.get(f"{{{NAMESPACE}}}name", "").rpartition(".")[2]
        if element.tag in folders:
            if f'{name}"' not in tree:
                sys.exit(f"the APK's manifest lacks {name}")
            if not (folders[element.tag] / f"{name}.kt").is_file():
                sys.exit(f"the manifest names {name}, and no file {name}.kt has it")
    if assets is not None:
        inside = set(zipfile.ZipFile(apk).namelist())
        wanted = {f"assets/{path.relative_to(assets)}" for path in assets.rglob("*") if path.is_file()}
        if missing := sorted(wanted - inside):
            sys.exit(f"the APK lacks {missing[0]}")


def main(jar: Path, out: Path, assets: Path | None) -> None:
    """See the top of this file."""
    out.mkdir(parents=True, exist_ok=True)
    apk = sign(link(jar, out, assets), out)
    check(apk, assets)
    print(f"assembled, aligned, signed and verified {apk.name} ({apk.stat().st_size:,} bytes, without code)")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else None)
