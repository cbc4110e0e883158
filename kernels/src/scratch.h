// Working memory: buffers of a thread, which grow to the largest request and are used again.
#pragma once

#include <cstddef>

namespace clue {

// At least `floats` floats on a 64-byte boundary, valid until the thread asks again. Throws std::bad_alloc.
float* scratch(size_t floats);

// The same of a second buffer: what the thread that starts an operator shares with the others.
float* scratch_shared(size_t floats);

}  // namespace clue
