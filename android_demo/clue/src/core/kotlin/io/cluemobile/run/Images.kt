package io.cluemobile.run

/** Images of one size, uint8 with the channels last; they may lie anywhere, so they are read one at a time. */
internal interface Images {
    val count: Int
    val height: Int
    val width: Int
    val channels: Int

    /** The bytes of one image. */
    val imageSize: Int get() = height * width * channels

    /** Copy image [index] into [into], whose size is [imageSize]. */
    fun read(index: Int, into: ByteArray)
}

/** Images in memory, one after the other. */
internal class ArrayImages(
    override val count: Int,
    override val height: Int,
    override val width: Int,
    override val channels: Int,
    val bytes: ByteArray,
) : Images {
    override fun read(index: Int, into: ByteArray) {
        bytes.copyInto(into, 0, index * imageSize, (index + 1) * imageSize)
    }
}

/** Some of the images, in the order of [positions]. */
internal class ChosenImages(private val all: Images, private val positions: IntArray) : Images by all {
    override val count: Int get() = positions.size

    override fun read(index: Int, into: ByteArray) = all.read(positions[index], into)
}

/** Images with the class of each. */
internal class Labelled(val images: Images, val labels: IntArray) {
    /** Those at [positions], in that order. */
    fun at(positions: IntArray): Labelled = Labelled(ChosenImages(images, positions), positions.map { labels[it] }.toIntArray())
}
