import org.jetbrains.kotlin.gradle.dsl.JvmTarget
import javax.inject.Inject

plugins {
    alias(libs.plugins.android.library)
    alias(libs.plugins.kotlin.android)
    `maven-publish`
}

group = "io.cluemobile"
version = "0.1.0"

android {
    namespace = "io.cluemobile.clue"
    compileSdk = 35
    resourcePrefix = "clue_"

    defaultConfig {
        minSdk = 26
        consumerProguardFiles("consumer-rules.pro")
    }

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }

    sourceSets.named("main") {
        // src/jvm stands in for Android in the tests (pom.xml) and is no part of the library
        kotlin.srcDirs("src/core/kotlin", "src/ort/kotlin", "src/executorch/kotlin", "src/main/kotlin")
    }

    publishing {
        singleVariant("release") {
            withSourcesJar()
        }
    }
}

kotlin {
    explicitApi()
    compilerOptions {
        jvmTarget.set(JvmTarget.JVM_17)
    }
}

dependencies {
    api(libs.coroutines)
    implementation(libs.onnxruntime)
    // an app that runs ExecuTorch programs adds this library itself; what it brings along names androidx
    compileOnly(libs.executorch) { isTransitive = false }
}

/** The files of the contract that the runtime reads, as resources beside its classes. */
abstract class ContractResources : DefaultTask() {
    @get:InputFiles
    abstract val files: ConfigurableFileCollection

    @get:OutputDirectory
    abstract val output: DirectoryProperty

    @get:Inject
    abstract val operations: FileSystemOperations

    @TaskAction
    fun copy() {
        operations.sync {
            from(files)
            into(output.dir("io/cluemobile/contract"))
        }
    }
}

val contract = listOf(file("../contract"), file("../../contract")).first { it.isDirectory }
val contractResources = tasks.register<ContractResources>("contractResources") {
    files.from(listOf("manifest.schema.json", "receipt.schema.json", "schema.sql").map { File(contract, it) })
}

androidComponents {
    onVariants { variant ->
        variant.sources.resources?.addGeneratedSourceDirectory(contractResources, ContractResources::output)
    }
}

publishing {
    publications {
        register<MavenPublication>("release") {
            artifactId = "clue"
            afterEvaluate { from(components["release"]) }
        }
    }
}
