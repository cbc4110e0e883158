// The innermost loops: products of a few positions and a block of channels, all sums in registers.
//
// Included once for each instruction set (target.cc); no include guard on purpose is not needed, since each
// translation unit compiles for one.
#pragma once

#include <hwy/highway.h>

#include "shapes.h"

namespace clue {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX3_DL
using Floats = hn::CappedTag<float, 16>;
constexpr int kLanes = 16, kVectors = 2, kRows = 12;   // 24 of 32 registers hold sums
#elif HWY_TARGET == HWY_AVX2
using Floats = hn::CappedTag<float, 8>;
constexpr int kLanes = 8, kVectors = 2, kRows = 6;     // 12 of 16
#else
using Floats = hn::CappedTag<float, 4>;
constexpr int kLanes = 4, kVectors = 4, kRows = 6;     // 24 of 32 (NEON), SSE4 spills
#endif
using Vector = hn::Vec<Floats>;

constexpr int kBlock = kLanes * kVectors;  // channels that a tile makes at once

inline int vectors_of(int channels) {  // of a block with this many channels left
    const int v = (channels + kLanes - 1) / kLanes;
    return v < kVectors ? v : kVectors;
}
inline int padded(int channels) { return (channels + kLanes - 1) / kLanes * kLanes; }

// out[m][0:V*lanes] = sum over taps t and channels k of x[m][offset[t] + k] * w[t][k][0:V*lanes].
template <int M, int V>
HWY_INLINE void tile(const float* const* x, const ptrdiff_t* offset, int taps, int channels, const float* w,
                     float* const* out) {
    const Floats d;
    Vector sum[M][V];
    for (int m = 0; m < M; ++m)
        for (int v = 0; v < V; ++v) sum[m][v] = hn::Zero(d);
    for (int t = 0; t < taps; ++t) {
        const float* at[M];
        for (int m = 0; m < M; ++m) at[m] = x[m] + offset[t];
        for (ptrdiff_t k = 0; k < channels; ++k) {
            Vector b[V];
            for (int v = 0; v < V; ++v) b[v] = hn::LoadU(d, w + v * kLanes);
            w += V * kLanes;
            for (int m = 0; m < M; ++m) {
                const Vector a = hn::Set(d, at[m][k]);
                for (int v = 0; v < V; ++v) sum[m][v] = hn::MulAdd(a, b[v], sum[m][v]);
            }
        }
    }
    for (int m = 0; m < M; ++m)
        for (int v = 0; v < V; ++v) hn::StoreU(sum[m][v], d, out[m] + v * kLanes);
}

using TileFn = void (*)(const float* const*, const ptrdiff_t*, int, int, const float*, float* const*);

template <int M, int V>
void tile_of(const float* const* x, const ptrdiff_t* offset, int taps, int channels, const float* w,
             float* const* out) {
    tile<M, V>(x, offset, taps, channels, w, out);
}

template <int V>
TileFn tile_for_rows(int rows) {
    switch (rows) {
        case 1: return tile_of<1, V>;
        case 2: return tile_of<2, V>;
        case 3: return tile_of<3, V>;
        case 4: return tile_of<4, V>;
        case 5: return tile_of<5, V>;
        case 6: return tile_of<6, V>;
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX3_DL
        case 7: return tile_of<7, V>;
        case 8: return tile_of<8, V>;
        case 9: return tile_of<9, V>;
        case 10: return tile_of<10, V>;
        case 11: return tile_of<11, V>;
        case 12: return tile_of<12, V>;
#endif
    }
    return nullptr;
}

inline TileFn tile_for(int rows, int vectors) {
    switch (vectors) {
        case 1: return tile_for_rows<1>(rows);
        case 2: return tile_for_rows<2>(rows);
#if HWY_TARGET != HWY_AVX2 && HWY_TARGET != HWY_AVX3 && HWY_TARGET != HWY_AVX3_DL
        case 3: return tile_for_rows<3>(rows);
        case 4: return tile_for_rows<4>(rows);
#endif
    }
    return nullptr;
}

// Positions of an image stack: how many, and floats from one to the next.
struct Walk {
    int images, height, width;
    ptrdiff_t image, row, step;
};

// sums[k][0:V*lanes] += sum over positions of x[position][k] * g[position][0:V*lanes], for M channels k. `g` has one position
// behind the other, `g_step` floats apart. What is added was summed on its own, so that long sums keep their digits.
template <int M, int V>
void outer(const float* x, const Walk& walk, const float* g, ptrdiff_t g_step, float* sums, ptrdiff_t sums_row) {
    const Floats d;
    Vector sum[M][V];
    for (int m = 0; m < M; ++m)
        for (int v = 0; v < V; ++v) sum[m][v] = hn::Zero(d);
    for (int n = 0; n < walk.images; ++n)
        for (int i = 0; i < walk.height; ++i) {
            const float* a = x + n * walk.image + i * walk.row;
            for (int j = 0; j < walk.width; ++j, a += walk.step, g += g_step) {
                Vector b[V];
                for (int v = 0; v < V; ++v) b[v] = hn::LoadU(d, g + v * kLanes);
                for (int m = 0; m < M; ++m) {
                    const Vector am = hn::Set(d, a[m]);
                    for (int v = 0; v < V; ++v) sum[m][v] = hn::MulAdd(am, b[v], sum[m][v]);
                }
            }
        }
    for (int m = 0; m < M; ++m)
        for (int v = 0; v < V; ++v) {
            float* to = sums + m * sums_row + v * kLanes;
            hn::StoreU(hn::Add(hn::LoadU(d, to), sum[m][v]), d, to);
        }
}

using OuterFn = void (*)(const float*, const Walk&, const float*, ptrdiff_t, float*, ptrdiff_t);

template <int V>
OuterFn outer_for_rows(int rows) {
    switch (rows) {
        case 1: return outer<1, V>;
        case 2: return outer<2, V>;
        case 3: return outer<3, V>;
        case 4: return outer<4, V>;
        case 5: return outer<5, V>;
        case 6: return outer<6, V>;
    }
    return nullptr;
}

inline OuterFn outer_for(int rows, int vectors) {
    switch (vectors) {
        case 1: return outer_for_rows<1>(rows);
        case 2: return outer_for_rows<2>(rows);
#if HWY_TARGET != HWY_AVX2 && HWY_TARGET != HWY_AVX3 && HWY_TARGET != HWY_AVX3_DL
        case 3: return outer_for_rows<3>(rows);
        case 4: return outer_for_rows<4>(rows);
#endif
    }
    return nullptr;
}

// The same for any number of channels k and g, a few of each at a time; `wide` is a multiple of kLanes.
inline void outer_all(const float* x, const Walk& walk, int k, const float* g, ptrdiff_t g_step, int wide, float* sums,
                      ptrdiff_t sums_row) {
    const int pieces = (k + 5) / 6;
    for (int piece = 0; piece < pieces; ++piece) {
        const int from = k * piece / pieces, rows = k * (piece + 1) / pieces - from;
        for (int begin = 0; begin < wide; begin += kBlock)
            outer_for(rows, vectors_of(wide - begin))(x + from, walk, g + begin, g_step, sums + from * sums_row + begin,
                                                      sums_row);
    }
}

}  // namespace HWY_NAMESPACE
}  // namespace clue
