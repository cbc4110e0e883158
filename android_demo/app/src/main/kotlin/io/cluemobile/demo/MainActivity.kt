package io.cluemobile.demo

import android.Manifest
import android.app.Activity
import android.app.AlertDialog
import android.content.ActivityNotFoundException
import android.content.Intent
import android.content.pm.PackageManager
import android.graphics.Bitmap
import android.net.Uri
import android.os.Build
import android.os.Bundle
import android.provider.MediaStore
import android.view.View
import android.widget.AdapterView
import android.widget.Button
import android.widget.Spinner
import android.widget.Toast
import io.cluemobile.SealPlan
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.Job
import kotlinx.coroutines.SupervisorJob
import kotlinx.coroutines.launch

/** The one screen: it draws what the model holds and passes on what is pressed, so a rotation loses nothing. */
class MainActivity : Activity() {
    private val model get() = (application as DemoApplication).model
    private var watching: Job? = null

    /** The question before sealing, while it is seen. */
    private var question: AlertDialog? = null

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setContentView(R.layout.main)
        on(R.id.take_photo) { ask(Intent(MediaStore.ACTION_IMAGE_CAPTURE), PHOTO, R.string.no_camera) }
        on(R.id.import_images) { ask(picker(), IMPORT, R.string.no_picker) }
        on(R.id.use_samples, model::addSamples)
        on(R.id.forget) {
            askForNotifications()
            if (model.screen.value.stock?.waiting == true) model.resume() else model.forget()
        }
        on(R.id.pause, model::pause)
        on(R.id.cancel) { model.cancel() }
        on(R.id.share_receipt, ::share)
        on(R.id.roll_back, model::rollBack)
        on(R.id.seal, model::askToSeal)
        view<Spinner>(R.id.classes).onItemSelectedListener = object : AdapterView.OnItemSelectedListener {
            override fun onItemSelected(parent: AdapterView<*>?, view: View?, position: Int, id: Long) = model.choose(position)

            override fun onNothingSelected(parent: AdapterView<*>?) = Unit
        }
    }

    override fun onStart() {
        super.onStart()
        val painter = Painter(this)
        watching = CoroutineScope(SupervisorJob() + Dispatchers.Main).launch {
            model.screen.collect { screen ->
                painter.paint(screen)
                ask(screen.sealPlan)
            }
        }
    }

    override fun onStop() {
        watching?.cancel()
        ask(null) // the model still has the question, for the next activity
        super.onStop()
    }

    override fun onActivityResult(requestCode: Int, resultCode: Int, data: Intent?) {
        super.onActivityResult(requestCode, resultCode, data)
        if (resultCode != RESULT_OK || data == null) return
        when (requestCode) {
            IMPORT -> model.add(imagesOf(data))
            // without a file to write to, the camera returns a small picture, which is more than the model takes
            PHOTO -> photoOf(data)?.let(model::add)
        }
    }

    private fun on(id: Int, action: () -> Unit) {
        view<Button>(id).setOnClickListener { action() }
    }

    private fun picker(): Intent =
        if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.TIRAMISU) {
            Intent(MediaStore.ACTION_PICK_IMAGES)
                .setType("image/*")
                .putExtra(MediaStore.EXTRA_PICK_IMAGES_MAX, MediaStore.getPickImagesMaxLimit())
        } else {
            Intent(Intent.ACTION_OPEN_DOCUMENT)
                .addCategory(Intent.CATEGORY_OPENABLE)
                .setType("image/*")
                .putExtra(Intent.EXTRA_ALLOW_MULTIPLE, true)
        }

    private fun ask(intent: Intent, code: Int, without: Int) {
        try {
            startActivityForResult(intent, code)
        } catch (_: ActivityNotFoundException) {
            Toast.makeText(this, without, Toast.LENGTH_LONG).show()
        }
    }

    private fun imagesOf(data: Intent): List<Uri> {
        val several = data.clipData ?: return listOfNotNull(data.data)
        return List(several.itemCount) { several.getItemAt(it).uri }
    }

    private fun photoOf(data: Intent): Bitmap? =
        if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.TIRAMISU) {
            data.getParcelableExtra("data", Bitmap::class.java)
        } else {
            @Suppress("DEPRECATION")
            data.getParcelableExtra("data")
        }

    /** A refusal costs the notification only, not the request. */
    private fun askForNotifications() {
        val permission = Manifest.permission.POST_NOTIFICATIONS
        val needed = Build.VERSION.SDK_INT >= Build.VERSION_CODES.TIRAMISU
        if (needed && checkSelfPermission(permission) != PackageManager.PERMISSION_GRANTED) requestPermissions(arrayOf(permission), 0)
    }

    private fun share() {
        val receipt = model.screen.value.stock?.receipt ?: return
        val send = Intent(Intent.ACTION_SEND).setType("application/json").putExtra(Intent.EXTRA_TEXT, receipt)
        startActivity(Intent.createChooser(send, getString(R.string.share_receipt)))
    }

    /** Shows the question whether to seal, or takes it away. */
    private fun ask(plan: SealPlan?) {
        if (plan == null) {
            question?.dismiss()
            question = null
        } else if (question == null) {
            val left = plan.notErased.joinToString { "${it.path} (${it.reason})" }.ifEmpty { getString(R.string.nothing) }
            question = AlertDialog.Builder(this)
                .setTitle(R.string.seal_question)
                .setMessage(getString(R.string.seal_explanation, left))
                .setNegativeButton(android.R.string.cancel) { _, _ -> model.dropSealing() }
                .setOnCancelListener { model.dropSealing() }
                .setPositiveButton(R.string.seal) { _, _ -> model.seal(plan) }
                .show()
        }
    }

    private companion object {
        const val PHOTO = 1
        const val IMPORT = 2
    }
}
