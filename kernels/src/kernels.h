// The kernels of one instruction set as a table of functions.
#pragma once

#include "shapes.h"

namespace clue {

// Arguments of `norm_grad`, all [n][positions][channels] or [channels]; more, out and kept may be null.
struct NormGrad {
    int n, positions, channels;
    bool train;              // the batch's own statistics normalised
    const float *g, *more;   // the gradient is their sum
    const float* out;        // where this is not above zero the gradient is zero
    const float *x, *mean, *invstd, *weight;
    float *gx, *gw, *gb;     // results
    float* kept;             // the masked gradient itself, where something else needs it
};

struct Norm {
    int n, positions, channels;
    bool relu;
    const float *x, *mean, *invstd, *weight, *bias, *residual;  // weight, bias and residual may be null
    float* y;
};

struct Kernels {
    const char* name;
    // y, and if mean is not null the channels' mean and population variance
    void (*conv)(const Conv&, const float* x, const float* w, const float* bias, float* y, float* mean, float* var,
                 const Parallel&);
    // gx may be null, gw too
    void (*conv_grad)(const Conv&, const float* g, const float* x, const float* w, float* gx, float* gw,
                      const Parallel&);
    void (*stats)(int n, int positions, int channels, const float* x, float* mean, float* var, const Parallel&);
    void (*norm)(const Norm&, const Parallel&);
    void (*norm_grad)(const NormGrad&, const Parallel&);
};

#if defined(__x86_64__)
const Kernels* kernels_avx2();
const Kernels* kernels_avx512();
#else
const Kernels* kernels_neon();
#endif

// The best that this processor has; null where it has none.
const Kernels* kernels();

}  // namespace clue
