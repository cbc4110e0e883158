package io.cluemobile

import io.cluemobile.jvm.JvmPlatform
import org.junit.jupiter.api.AfterEach
import org.junit.jupiter.api.BeforeEach
import org.junit.jupiter.api.io.TempDir
import java.nio.file.Path

/** Tests that each have a [toy] of their own, in an empty [folder]. */
internal abstract class ToyTest {
    @TempDir
    lateinit var folder: Path
    protected lateinit var toy: Toy

    /** What the toy's store takes from the system. */
    protected open val platform: Platform = JvmPlatform()

    @BeforeEach
    fun openToy() {
        toy = Toy(folder, platform)
    }

    @AfterEach
    fun closeToy(): Unit = toy.close()
}
