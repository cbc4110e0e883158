package io.cluemobile.bundle

import io.cluemobile.BundleException
import io.cluemobile.json.JsonObject
import io.cluemobile.json.asObject
import io.cluemobile.json.int
import io.cluemobile.json.number
import io.cluemobile.json.numberOrNull
import io.cluemobile.json.obj
import io.cluemobile.json.objects
import io.cluemobile.json.shape
import io.cluemobile.json.text
import io.cluemobile.json.texts
import io.cluemobile.json.whole
import io.cluemobile.plan.Batches
import io.cluemobile.plan.Epochs
import io.cluemobile.plan.Node
import io.cluemobile.plan.Number
import io.cluemobile.plan.Phase
import io.cluemobile.plan.Repeat
import io.cluemobile.plan.ResetNode
import io.cluemobile.plan.RunNode
import io.cluemobile.plan.StopNode
import io.cluemobile.plan.Variant
import java.nio.file.Path

/** The types of a manifest that fits the schema; what stands in it was not yet held against each other. */
internal fun bundleOf(root: Path, manifest: Manifest): ClueBundle {
    val raw = manifest.json
    val method = raw.obj("method")
    val verify = method.obj("verify")
    val (channels, height, width) = raw.obj("input").shape("shape")
    return ClueBundle(
        root = root,
        name = raw.text("name"),
        sha256 = manifest.sha256,
        classes = raw.obj("model").texts("classes"),
        input = InputShape(channels, height, width),
        color = raw.obj("input").text("color"),
        fit = raw.obj("preprocessing")["fit"] as String? ?: "stretch",
        method = method.text("name"),
        batch = method.int("batch"),
        tunedBatch = method.int("tuned_batch"),
        scalars = method.obj("scalars").mapValues { (it.value as kotlin.Number).toDouble() },
        forgetAccuracyAtMost = verify.number("forget_accuracy_at_most"),
        sampleAccuracyAtMost = verify.numberOrNull("sample_accuracy_at_most"),
        leastImages = if ("least_images" in method) method.int("least_images") else 0,
        license = raw.text("license"),
        notices = raw.texts("notices"),
        weights = entry(raw.obj("weights")),
        programs = raw.obj("programs").mapValues { (name, program) -> program(name, program.asObject()) },
        values = raw.obj("values").mapValues { (name, value) -> value(name, value.asObject()) },
        randoms = raw.obj("randoms").mapValues { (name, random) -> random(name, random.asObject()) },
        plan = nodes(raw.objects("plan")),
        files = files(root, raw.objects("files")),
        guard = raw["guard"]?.asObject()?.text("file"),
        guardDropAtMost = verify.numberOrNull("guard_drop_at_most"),
        collapse = verify["collapse"]?.asObject()?.let {
            Collapse(it.int("probes"), it.number("kept_at_least"), it.number("largest_share_at_most"))
        },
    )
}

private fun entry(raw: JsonObject) = FileEntry(raw.text("file"), raw.text("sha256"), raw.whole("bytes"))

private fun files(root: Path, rows: List<JsonObject>): Map<String, FileEntry> {
    val files = rows.map(::entry).associateBy { it.file }
    if (files.size != rows.size) {
        throw BundleException("bundle $root: manifest.json, files: a file is listed twice; export it again")
    }
    return files
}

private fun ports(raw: List<JsonObject>) =
    raw.map { Port(it.text("name"), Role.of(it.text("role")), it.shape("shape"), it["binds"] as String? ?: "") }

private fun program(name: String, raw: JsonObject) = Program(
    name = name,
    batch = raw.int("batch"),
    inputs = ports(raw.objects("inputs")),
    outputs = ports(raw.objects("outputs")),
    flops = raw.whole("flops"),
    peakBytes = raw.whole("peak_bytes"),
    files = raw.obj("files").mapValues { entry(it.value.asObject()) },
    golden = golden(raw.obj("golden")),
)

private fun golden(raw: JsonObject) = Golden(
    file = raw.text("file"),
    sha256 = raw.text("sha256"),
    seed = raw.whole("seed"),
    inputs = raw.obj("inputs").mapValues { (_, draws) -> (draws as List<*>).map { draw(it.asObject()) } },
    outputs = raw.obj("outputs").mapValues { (_, output) ->
        GoldenOutput(output.asObject().int("stride"), output.asObject().number("tolerance"))
    },
)

private fun draw(raw: JsonObject) =
    GoldenDraw(raw.text("distribution"), raw.int("length"), raw.numberOrNull("a") ?: 0.0, raw.numberOrNull("b") ?: 1.0)

private fun value(name: String, raw: JsonObject) =
    Value(name, Role.of(raw.text("role")), raw.shape("shape"), init(raw.obj("init")), raw.text("storage") == "bits")

private fun init(raw: JsonObject): Init = when {
    "weights" in raw -> Init.Weights(raw.text("weights"))
    "file" in raw -> Init.File(raw.text("file"), raw.text("key"))
    "value" in raw -> Init.Copy(raw.text("value"))
    "random" in raw -> Init.Random(raw.text("random"))
    else -> Init.Zeros
}

private fun random(name: String, raw: JsonObject) = RandomStream(
    name = name,
    stream = raw.whole("stream"),
    distribution = raw.text("distribution"),
    shape = raw.shape("shape"),
    low = raw.numberOrNull("low") ?: 0.0,
    high = raw.numberOrNull("high") ?: 1.0,
    classes = if ("classes" in raw) raw.int("classes") else 0,
)

private fun nodes(raw: List<JsonObject>): List<Node> = raw.map(::node)

private fun node(raw: JsonObject): Node = when {
    "phase" in raw -> Phase(raw.text("phase"), nodes(raw.objects("body")))
    "reset" in raw -> ResetNode(raw.texts("reset"))
    "run" in raw -> RunNode(
        program = raw.text("run"),
        bind = raw["bind"]?.asObject().orEmpty().mapValues { it.value as String },
        instead = if ("instead" in raw) raw.objects("instead").map(::variant) else emptyList(),
    )
    "stop" in raw -> raw.obj("stop").let {
        StopNode(it.text("program"), number(it["every"]), it.int("samples"), number(it["accuracy_at_most"]))
    }
    raw.text("loop") == "batches" -> Batches(
        size = raw.int("size"),
        shuffled = raw["order"]?.let { it == "shuffled" },
        augment = raw["augment"]?.let { it == "crop_flip" },
        body = nodes(raw.objects("body")),
    )
    raw.text("loop") == "epochs" -> Epochs(number(raw["count"]), nodes(raw.objects("body")))
    else -> Repeat(number(raw["count"]), nodes(raw.objects("body")))
}

private fun variant(raw: JsonObject): Variant {
    val zeros = raw.obj("zeros")
    return Variant(raw.text("run"), zeros.keys.associateWith(zeros::int))
}

private fun number(raw: Any?): Number = if (raw is String) Number.Scalar(raw) else Number.Fixed((raw as kotlin.Number).toDouble())
