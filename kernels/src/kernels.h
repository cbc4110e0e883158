// The kernels of one instruction set as a table of functions.
#pragma once

#include "shapes.h"

namespace clue {

// Arguments of `norm`, all [n][positions][channels] or [channels]; weight, bias and residual may be null.
struct Norm {
    int n, positions, channels;
    float low, high;  // the result is clamped to these; infinite: it is not
    const float *x, *mean, *invstd, *weight, *bias, *residual;
    float* y;
};

// What the gradient g of a norm is multiplied with: 1 strictly between the limits of its clamped result, else 0.
enum class Mask {
    kNone,
    kOut,  // as the result `out` says
    kOwn,  // as the norm of x says, taken again in the same operations: for results without residual
};

// Arguments of `norm_grad`; weight, bias, more, out and kept may be null.
struct NormGrad {
    int n, positions, channels;
    bool train;              // the batch's own statistics normalised
    Mask mask;
    float low, high;
    const float *g, *more;   // the gradient is their sum
    const float* out;
    const float *x, *mean, *invstd, *weight, *bias;
    float *gx, *gw, *gb;     // results
    float* kept;             // the masked gradient itself, where something else needs it
};

// Arguments of `layer_norm`, [rows][channels], [channels] and [rows]; weight, bias, mean and invstd may be null.
struct LayerNorm {
    int rows, channels;
    float epsilon;
    const float *x, *weight, *bias;
    float *y, *mean, *invstd;  // results
};

// Arguments of `layer_norm_grad`; weight may be null.
struct LayerNormGrad {
    int rows, channels;
    const float *g, *x, *mean, *invstd, *weight;
    float *gx, *gw, *gb;  // results
};

// A piece of a gradient, which begins at the element `first` of the whole.
struct Piece {
    const float* g;
    size_t first;
};

// Arguments of `sgd`, all [count]; mask may be null, and a result its argument's memory.
struct Sgd {
    size_t count;
    float momentum, lr;
    const float *w, *v, *mask;
    const Piece* pieces;
    int pieces_count;
    float *to, *moved;
};

struct Kernels {
    const char* name;
    // y, and if mean is not null the channels' mean and population variance
    void (*conv)(const Conv&, const float* x, const float* w, const float* bias, float* y, float* mean, float* var,
                 const Parallel&);
    // gx may be null, gw too
    void (*conv_grad)(const Conv&, const float* g, const float* x, const float* w, float* gx, float* gw,
                      const Parallel&);
    void (*max_pool)(const Conv&, const float* x, float* y, const Parallel&);
    void (*max_pool_grad)(const Conv&, const float* g, const float* x, float* gx, const Parallel&);
    // y [n][positions][channels] = (x [n][channels][positions] - mean) / std
    void (*image)(int n, int channels, int positions, const float* x, const float* mean, const float* std, float* y,
                  const Parallel&);
    void (*stats)(int n, int positions, int channels, const float* x, float* mean, float* var, const Parallel&);
    void (*norm)(const Norm&, const Parallel&);
    void (*norm_grad)(const NormGrad&, const Parallel&);
    void (*layer_norm)(const LayerNorm&, const Parallel&);
    void (*layer_norm_grad)(const LayerNormGrad&, const Parallel&);
    void (*gelu)(size_t count, const float* x, float* y, const Parallel&);
    void (*gelu_grad)(size_t count, const float* g, const float* x, float* gx, const Parallel&);
    void (*sgd)(const Sgd&, const Parallel&);
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
