// ONNX Runtime's C API: the framework's header on Apple platforms, the installed one on Linux.
#pragma once
#include <onnxruntime/onnxruntime_c_api.h>
