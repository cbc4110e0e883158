// Depthwise convolution: each channel with a kernel of its own, as shifted multiply-adds over vectors of channels.
#pragma once

#include "norm.h"

namespace clue {
namespace HWY_NAMESPACE {

inline bool is_depthwise(const Conv& s) { return s.groups == s.c && s.groups == s.o && s.groups > 1; }

// [channel][tap] as [tap][channel].
inline void pack_depthwise(const Conv& s, const float* w, float* to) {
    for (int t = 0; t < s.taps(); ++t)
        for (int c = 0; c < s.c; ++c) *to++ = w[size_t(c) * s.taps() + t];
}

// Four positions of a row at a time, so that a tap's weights are loaded once for them.
template <int P, class D>
HWY_INLINE void deep_tile(D d, const float* x, ptrdiff_t step, const ptrdiff_t* offset, const int* which, int taps,
                          const float* w, int channels, float* y, ptrdiff_t y_step) {
    hn::Vec<D> sum[P];
    for (int p = 0; p < P; ++p) sum[p] = hn::Zero(d);
    for (int t = 0; t < taps; ++t) {
        const hn::Vec<D> b = hn::LoadU(d, w + ptrdiff_t(which[t]) * channels);
        const float* at = x + offset[t];
        for (int p = 0; p < P; ++p) sum[p] = hn::MulAdd(hn::LoadU(d, at + p * step), b, sum[p]);
    }
    for (int p = 0; p < P; ++p) hn::StoreU(sum[p], d, y + p * y_step);
}

template <class After>
void deep_grid(const Grid& grid, const float* source, const ptrdiff_t* offset, const int* which, int taps, const float* w,
               int channels, float* result, After&& after) {
    for (int i = 0; i < grid.height; ++i) {
        each_block(channels, [&](auto d, auto v, int c) {
            constexpr int V = decltype(v)::value;
            for (int k = 0; k < V; ++k) {
                const int at = c + k * int(hn::Lanes(d));
                const float* x = source + i * grid.source_row + at;
                float* y = result + i * grid.result_row + at;
                int j = 0;
                for (; j + 4 <= grid.width; j += 4)
                    deep_tile<4>(d, x + j * grid.source_step, grid.source_step, offset, which, taps, w + at, channels,
                                 y + j * grid.result_step, grid.result_step);
                for (; j < grid.width; ++j)
                    deep_tile<1>(d, x + j * grid.source_step, grid.source_step, offset, which, taps, w + at, channels,
                                 y + j * grid.result_step, grid.result_step);
            }
        });
        after(i * grid.width, grid.width);
    }
}

template <class After>
void depthwise_forward(const Conv& s, const Padded& p, const ptrdiff_t* offset, const float* source, const float* packed,
                       float* y, After&& after) {
    int which[kMostTaps];
    for (int t = 0; t < s.taps(); ++t) which[t] = t;
    const Grid grid{s.ho, s.wo, s.sh * p.row(), ptrdiff_t(s.sw) * s.c, ptrdiff_t(s.wo) * s.o, s.o};
    deep_grid(grid, source, offset, which, s.taps(), packed, s.c, y, after);
}

inline void depthwise_backward(const Conv& s, const Padded& q, const float* source, const float* packed, float* gx) {
    const float* middle = source + q.top * q.row() + ptrdiff_t(q.left) * s.o;
    ptrdiff_t offset[kMostTaps];
    int which[kMostTaps];
    each_class(s, [&](int r, int c, const Axis& v, const Axis& h) {
        int taps = 0;
        for (int a = 0; a < v.count; ++a)
            for (int b = 0; b < h.count; ++b) {
                offset[taps] = v.shift[a] * q.row() + ptrdiff_t(h.shift[b]) * s.o;
                which[taps++] = v.taps[a] * s.kw + h.taps[b];
            }
        const Grid grid{(s.h - 1 - r) / s.sh + 1, (s.w - 1 - c) / s.sw + 1, q.row(), s.o,
                        ptrdiff_t(s.sh) * s.w * s.c, ptrdiff_t(s.sw) * s.c};
        deep_grid(grid, middle, offset, which, taps, packed, s.c, gx + (ptrdiff_t(r) * s.w + c) * s.c, Nothing());
    });
}

// Adds one image to sums [tap][channel]. Taps in groups of four share the loads of g.
template <int T, class D>
HWY_INLINE void deep_sums(D d, const float* x, ptrdiff_t x_row, ptrdiff_t x_step, const ptrdiff_t* offset,
                          const float* g, ptrdiff_t g_row, int channels, int height, int width, float* sums) {
    hn::Vec<D> sum[T];
    for (int t = 0; t < T; ++t) sum[t] = hn::LoadU(d, sums + ptrdiff_t(t) * channels);
    for (int i = 0; i < height; ++i)
        for (int j = 0; j < width; ++j) {
            const hn::Vec<D> b = hn::LoadU(d, g + i * g_row + ptrdiff_t(j) * channels);
            const float* at = x + i * x_row + j * x_step;
            for (int t = 0; t < T; ++t) sum[t] = hn::MulAdd(hn::LoadU(d, at + offset[t]), b, sum[t]);
        }
    for (int t = 0; t < T; ++t) hn::StoreU(sum[t], d, sums + ptrdiff_t(t) * channels);
}

inline void depthwise_weight(const Conv& s, const Padded& p, const ptrdiff_t* offset, const float* source,
                             const float* g, ptrdiff_t g_row, float* sums) {
    each_block(s.c, [&](auto d, auto v, int c) {
        constexpr int V = decltype(v)::value;
        for (int k = 0; k < V; ++k) {
            const int at = c + k * int(hn::Lanes(d));
            int t = 0;
            const auto run = [&](auto count) {
                constexpr int T = decltype(count)::value;
                for (; t + T <= s.taps(); t += T)
                    deep_sums<T>(d, source + at, s.sh * p.row(), ptrdiff_t(s.sw) * s.c, offset + t, g + at, g_row, s.c,
                                 s.ho, s.wo, sums + ptrdiff_t(t) * s.c + at);
            };
            run(std::integral_constant<int, 9>());
            run(std::integral_constant<int, 4>());
            run(std::integral_constant<int, 1>());
        }
    });
}

inline void unpack_depthwise(const Conv& s, const float* sums, int count, size_t stride, float* gw) {
    for (int c = 0; c < s.c; ++c)
        for (int t = 0; t < s.taps(); ++t) {
            float total = 0;
            for (int k = 0; k < count; ++k) total += sums[k * stride + size_t(t) * s.c + c];
            *gw++ = total;
        }
}

}  // namespace HWY_NAMESPACE
}  // namespace clue
