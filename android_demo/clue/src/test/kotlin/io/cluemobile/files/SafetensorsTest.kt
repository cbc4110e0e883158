package io.cluemobile.files

import io.cluemobile.StorageException
import org.junit.jupiter.api.Assertions.assertArrayEquals
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.file.Path
import kotlin.io.path.writeBytes

class SafetensorsTest {
    @TempDir
    lateinit var folder: Path

    private fun file(header: String, data: Int, claimed: Long? = null): Path {
        val text = header.encodeToByteArray()
        val content = ByteBuffer.allocate(8 + text.size + data).order(ByteOrder.LITTLE_ENDIAN)
        content.putLong(claimed ?: text.size.toLong()).put(text)
        return folder.resolve("x.safetensors").apply { writeBytes(content.array()) }
    }

    private fun entry(dtype: String = "F32", shape: String = "[2]", offsets: String = "[0,8]") =
        """"a":{"dtype":"$dtype","shape":$shape,"data_offsets":$offsets}"""

    @Test
    fun `what is written is read again`() {
        val path = folder.resolve("a")
        val layouts = mapOf(
            "b" to TensorLayout("U8", listOf(3), 3),
            "a" to TensorLayout("F32", listOf(1, 2), 8),
            "none" to TensorLayout("F32", listOf(0), 0),
        )
        val header = Safetensors.encodedHeader(layouts, mapOf("k" to "v\"\n"))
        atomicWrite(path, sequenceOf(header, ByteArray(8) { 1 }, byteArrayOf(7, 8, 9)).map { ByteBuffer.wrap(it) })
        val found = Safetensors.readHeader(path)
        assertEquals(0, header.size % 8)
        assertEquals(mapOf("k" to "v\"\n"), found.metadata)
        assertEquals(listOf(1, 2), found.tensors.getValue("a").shape)
        assertArrayEquals(byteArrayOf(7, 8, 9), Safetensors.read(path, found.tensors.getValue("b")))
        assertEquals(0, Safetensors.read(path, found.tensors.getValue("none")).size)
    }

    @Test
    fun `a header that lies is refused`() {
        for ((header, data, word) in listOf(
            Triple("{${entry()}}", 9, "end"),
            Triple("{${entry()}}", 7, "end"),
            Triple("{${entry(offsets = "[1,9]")}}", 9, "begins"),
            Triple("{${entry(offsets = "[8,0]")}}", 8, "begin and end"),
            Triple("{${entry(offsets = "[-8,0]")}}", 8, "begin and end"),
            Triple("{${entry(shape = "[3]")}}", 8, "fit"),
            Triple("{${entry(shape = "[-2]")}}", 8, "sizes"),
            Triple("{${entry(shape = "[2.0]")}}", 8, "sizes"),
            Triple("{${entry(shape = "[9007199254740991,9007199254740991]")}}", 8, "large"),
            Triple("{${entry(shape = "[0,9007199254740991]", offsets = "[0,0]")}}", 0, "large"),
            Triple("{${entry(shape = "[1,1,1,1,1,1,1,1,2]")}}", 8, "sizes"),
            Triple("{${entry(dtype = "F8")}}", 8, "type"),
            Triple("""{"a":{"dtype":"F32"}}""", 0, "entry"),
            Triple("{${entry()},${entry()}}", 8, "twice"),
            Triple("""{"__metadata__":{"a":1}}""", 0, "metadata"),
            Triple("[]", 0, "object"),
            Triple("nonsense", 0, "sound"),
        )) {
            val error = assertThrows(StorageException::class.java, { Safetensors.readHeader(file(header, data)) }, header)
            assertTrue(word in error.message.orEmpty()) { "$header: ${error.message}" }
        }
        for (claimed in listOf(-1L, Long.MAX_VALUE, 1000L)) {
            assertThrows(StorageException::class.java) { Safetensors.readHeader(file("{}", 0, claimed)) }
        }
        folder.resolve("short").writeBytes(ByteArray(7))
        assertThrows(StorageException::class.java) { Safetensors.readHeader(folder.resolve("short")) }
    }

    @Test
    fun `arrays may not overlap`() {
        val two = """{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}"""
        assertThrows(StorageException::class.java) { Safetensors.readHeader(file(two, 6)) }
    }
}
