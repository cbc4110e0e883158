#!/usr/bin/env bash
# Parses every Swift file of the package and the demo app, and type checks them as on an Apple platform against interface_stubs/:
# typecheck.sh, inside the folder of toolchain.sh (enter.sh). Nothing is built. The compiler's platform is Linux, so a copy is checked
# whose conditions os(iOS) and os(Linux) are spelled by what can be imported.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
demo=$(cd "$here/../../ios_demo" && pwd)
out=${1:-/scratch/typecheck}
rm -rf "$out"
mkdir -p "$out/interfaces" "$out/modules"

mapfile -t files < <(find "$demo" -name '*.swift' -not -path '*/.build/*')
printf '%s\0' "${files[@]}" | xargs -0 -n 1 swiftc -frontend -parse # one by one: names may repeat
echo "parsed ${#files[@]} files"

target=$(swiftc -print-target-info | sed -n 's/.*"triple": "\(.*\)".*/\1/p' | head -n 1)
for stub in "$here"/interface_stubs/*.swiftinterface; do
    sed "s/TARGET/$target/" "$stub" >"$out/interfaces/$(basename "$stub")"
done
# AppleFoundation is what Foundation itself has on Apple platforms
flags=(-wmo -swift-version 5 -strict-concurrency=complete -warnings-as-errors -I "$out/interfaces" -I "$out/modules" -I "$demo/Sources/CSQLite"
    -module-cache-path "$out/cache" -Xfrontend -import-module -Xfrontend AppleFoundation)

cp -r "$demo" "$out/demo"
find "$out/demo" -name '*.swift' -exec sed -i 's/os(iOS)/canImport(UIKit)/; s/os(Linux)/!canImport(Darwin)/' {} +

# SwiftPM writes this for targets with resources
echo 'import Foundation
extension Foundation.Bundle { static var module: Foundation.Bundle { .main } }' >"$out/demo/Sources/ClueCore/resource_bundle.swift"

module() { # NAME FOLDER PACKAGE: its module, for those that import it
    mapfile -t files < <(find "$2" -name '*.swift')
    swiftc "${flags[@]}" -package-name "$3" -parse-as-library -emit-module -module-name "$1" -emit-module-path "$out/modules/$1.swiftmodule" \
        "${files[@]}"
    echo "type checked $1: ${#files[@]} files"
}
module ClueCore "$out/demo/Sources/ClueCore" ClueRuntime
module ClueApple "$out/demo/Sources/ClueApple" ClueRuntime
module ClueCoreML "$out/demo/Sources/ClueCoreML" ClueRuntime
module ClueExecuTorch "$out/demo/ExecuTorch/Sources/ClueExecuTorch" ClueExecuTorch
# SwiftPM writes this for targets of C
mkdir "$out/c"
echo "module COnnxRuntime { header \"$demo/Ort/Sources/COnnxRuntime/include/clue_onnxruntime.h\" export * }" >"$out/c/module.modulemap"
flags+=(-I "$out/c")
module ClueOrt "$out/demo/Ort/Sources/ClueOrt" ClueOrt
module ClueDemo "$out/demo/ClueDemo/ClueDemo" ClueDemo
