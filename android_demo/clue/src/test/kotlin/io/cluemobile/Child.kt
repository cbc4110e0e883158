package io.cluemobile

import ai.onnxruntime.OrtEnvironment
import org.junit.jupiter.api.Assertions.fail
import java.nio.file.Files
import java.nio.file.Path
import java.util.concurrent.TimeUnit
import kotlin.system.exitProcess

private const val AT_THE_POINT = "at the point"
private const val PATIENCE_S = 60L
private const val KILLED = 128 + 9

/**
 * ONNX Runtime's libraries, unpacked once for all children: a child that unpacks its own and is killed leaves 28 MB behind.
 */
private val NATIVE: Path by lazy {
    val folder = Files.createTempDirectory("clue-native")
    Runtime.getRuntime().addShutdownHook(Thread { folder.toFile().deleteRecursively() })
    for (name in listOf("onnxruntime", "onnxruntime4j_jni")) {
        val file = System.mapLibraryName(name)
        val arch = if (System.getProperty("os.arch") == "aarch64") "aarch64" else "x64"
        val packed = OrtEnvironment::class.java.getResourceAsStream("/ai/onnxruntime/native/linux-$arch/$file")
        checkNotNull(packed) { "these tests run on Linux" }.use { Files.copy(it, folder.resolve(file)) }
    }
    folder
}

/**
 * Runs [main] (a class with a main function) in a JVM of its own and kills it, by SIGKILL, as soon as it says that it has
 * come to the point where it is to die, see [waitToBeKilled].
 */
internal fun killChildAtThePoint(main: Class<*>, vararg arguments: String) {
    val process = startChild(main, *arguments)
    val watchdog = watch(process)
    val said = process.inputStream.bufferedReader().linesUpTo(AT_THE_POINT)
    process.destroyForcibly()
    process.waitFor()
    watchdog.interrupt()
    if (AT_THE_POINT !in said) fail<Unit>("the child was to be killed, and ended by itself:\n${said.joinToString("\n")}")
    if (process.exitValue() != KILLED) fail<Unit>("the child ended with ${process.exitValue()} instead of by SIGKILL")
}

/** Starts [main] in a JVM of its own, its error output with its output; a shell carries out [before] in the same process. */
internal fun startChild(main: Class<*>, vararg arguments: String, before: String = ""): Process {
    val java = Path.of(System.getProperty("java.home"), "bin", "java").toString()
    val command = listOf(
        java, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dclue.contract=${Contract.folder}",
        "-Donnxruntime.native.path=$NATIVE", "-cp", System.getProperty("java.class.path"), main.name,
    )
    val shell = listOf("sh", "-c", before + "exec \"$@\"", "sh")
    return ProcessBuilder(shell + command + arguments).redirectErrorStream(true).start()
}

/** To be called by a child at the point where it is to die. */
internal fun waitToBeKilled(): Nothing {
    println(AT_THE_POINT)
    System.out.flush()
    TimeUnit.SECONDS.sleep(PATIENCE_S)
    exitProcess(1)
}

private fun watch(process: Process): Thread = Thread {
    try {
        if (!process.waitFor(PATIENCE_S, TimeUnit.SECONDS)) process.destroyForcibly()
    } catch (_: InterruptedException) {
        return@Thread
    }
}.apply {
    isDaemon = true
    start()
}

private fun java.io.BufferedReader.linesUpTo(last: String): List<String> {
    val lines = mutableListOf<String>()
    while (true) {
        val line = readLine() ?: return lines
        lines += line
        if (line == last) return lines
    }
}
