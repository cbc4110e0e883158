// A C target needs a source file; what counts is the header.
#include "clue_onnxruntime.h"
