package io.cluemobile.android

import android.content.Context
import io.cluemobile.Device
import io.cluemobile.ImageDecoder
import io.cluemobile.Platform
import io.cluemobile.Signer
import io.cluemobile.SqlDatabase
import io.cluemobile.pictures.PictureDecoder
import java.nio.file.Path

/** Android as the runtime sees it: SQLite, the Keystore, its decoder of pictures, its sensors. Keeps the app's context only. */
public class AndroidPlatform(context: Context) : Platform {
    private val app = context.applicationContext

    override val images: ImageDecoder = PictureDecoder(BitmapJpeg)

    override val device: Device = AndroidDevice(app)

    override fun openDatabase(file: Path): SqlDatabase = AndroidDatabase.open(file)

    override fun signer(folder: Path): Signer = KeystoreSigner.open(folder)
}
