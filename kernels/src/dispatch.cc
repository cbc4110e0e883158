// Which kernels this processor can run, and the threads' working memory.
#include <cstdlib>
#include <memory>
#include <new>

#include "kernels.h"
#include "scratch.h"

namespace clue {

const Kernels* kernels() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512cd"))
        return kernels_avx512();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return kernels_avx2();
    return nullptr;
#else
    return kernels_neon();
#endif
}

namespace {

class Buffer {
   public:
    ~Buffer() { std::free(floats_); }

    float* get(size_t floats) {
        if (floats > size_) {
            std::free(floats_);
            size_ = 0;
            floats_ = static_cast<float*>(std::aligned_alloc(64, (floats * sizeof(float) + 63) / 64 * 64));
            if (floats_ == nullptr) throw std::bad_alloc();
            size_ = floats;
        }
        return floats_;
    }

   private:
    float* floats_ = nullptr;
    size_t size_ = 0;
};

thread_local Buffer own, shared;

}  // namespace

float* scratch(size_t floats) { return own.get(floats); }
float* scratch_shared(size_t floats) { return shared.get(floats); }

}  // namespace clue
