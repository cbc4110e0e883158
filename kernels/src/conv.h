// The three products of a convolution as register-tiled sums over shifted images (implicit GEMM).
#pragma once

#include <cstring>

#include "scratch.h"
#include "tile.h"

namespace clue {
namespace HWY_NAMESPACE {

constexpr int kMostTaps = 1024;

// A grid of positions of an image: where each position's channels begin in the source and in the result.
struct Grid {
    int height, width;
    ptrdiff_t source_row, source_step, result_row, result_step;
};

inline size_t packed_floats(int taps, int k, int channels) { return size_t(taps) * k * padded(channels); }

// Positions that are taken through all blocks of channels before the next ones are: all of them where the weights are many,
// so that a block of weights is read once; else so few that what is read and written stays in the second cache.
inline int strip_of(int count, int taps, int k, int channels) {
    constexpr int kCache = 1 << 16;  // floats: half of a small second cache
    if (taps * k * channels > kCache || channels <= kBlock) return count;
    const int strip = kCache / 2 / (k + channels) / kRows * kRows;
    return strip < 4 * kRows ? 4 * kRows : strip;
}

// result[position][0:channels] = sum over taps and k of source[position + offset[tap]][k] * w[...]. `w` lies in blocks
// of up to kBlock channels, each [tap][k][channel of the block], filled up with zeros. after(first, count): positions are done.
template <class After>
void correlate(const Grid& grid, const float* source, float* result, const float* weights, const ptrdiff_t* offset, int taps,
               int k, int channels, After&& after) {
    const int count = grid.height * grid.width, strip = strip_of(count, taps, k, channels);
    alignas(64) float spare[kRows * kBlock];
    for (int first = 0; first < count; first += strip) {
        const int end = count - first < strip ? count : first + strip;
        const float* w = weights;
        for (int begin = 0; begin < channels; begin += kBlock) {
            const int left = channels - begin < kBlock ? channels - begin : kBlock;
            const int vectors = vectors_of(left), wide = vectors * kLanes;
            const TileFn whole = tile_for(kRows, vectors);
            int i = first / grid.width, j = first % grid.width;
            for (int p = first; p < end; p += kRows) {
                const int rows = end - p < kRows ? end - p : kRows;
                const float* x[kRows];
                float *out[kRows], *to[kRows];
                for (int m = 0; m < rows; ++m) {
                    x[m] = source + i * grid.source_row + j * grid.source_step;
                    to[m] = result + i * grid.result_row + j * grid.result_step + begin;
                    out[m] = left == wide ? to[m] : spare + m * kBlock;
                    if (++j == grid.width) j = 0, ++i;
                }
                (rows == kRows ? whole : tile_for(rows, vectors))(x, offset, taps, k, w, out);
                if (left != wide)
                    for (int m = 0; m < rows; ++m) std::memcpy(to[m], out[m], left * sizeof(float));
            }
            w += size_t(taps) * k * wide;
        }
        after(first, end - first);
    }
}

struct Nothing {
    void operator()(int, int) const {}
};

// w[tap][k][channels] in the order that `correlate` takes; value(tap, k, channel) is the weight.
template <class Value>
void pack(int taps, int k, int channels, float* to, Value&& value) {
    for (int begin = 0; begin < channels; begin += kBlock) {
        const int left = channels - begin < kBlock ? channels - begin : kBlock;
        const int wide = vectors_of(left) * kLanes;
        for (int t = 0; t < taps; ++t)
            for (int i = 0; i < k; ++i)
                for (int j = 0; j < wide; ++j) *to++ = j < left ? value(t, i, begin + j) : 0.0f;
    }
}

// An image with zeros around it.
struct Padded {
    int top, left, height, width, channels;  // height and width with the zeros
    ptrdiff_t row() const { return ptrdiff_t(width) * channels; }
    size_t floats() const { return size_t(height) * width * channels; }
};

// Copies rows of an image [h][w][channels] into the middle; `copy(from, to, floats)` may change values on the way.
template <class Copy>
void place(const Padded& shape, const float* image, int h, int w, float* to, Copy&& copy) {
    to += shape.top * shape.row() + ptrdiff_t(shape.left) * shape.channels;
    const ptrdiff_t line = ptrdiff_t(w) * shape.channels;
    for (int i = 0; i < h; ++i, image += line, to += shape.row()) copy(image, to, line);
}

struct Plain {
    void operator()(const float* from, float* to, ptrdiff_t n) const { std::memcpy(to, from, n * sizeof(float)); }
};

// forward

inline Padded forward_source(const Conv& s) {
    return {s.ph, s.pw, s.h + 2 * s.ph, s.w + 2 * s.pw, s.c};
}

inline void forward_offsets(const Conv& s, const Padded& p, ptrdiff_t* offset) {
    for (int a = 0; a < s.kh; ++a)
        for (int b = 0; b < s.kw; ++b) *offset++ = a * s.dh * p.row() + ptrdiff_t(b) * s.dw * s.c;
}

// The taps of a convolution as the loops see them: where the pixels of a kernel's row lie one behind the other, a row counts
// as one tap with more channels. The order of the products, and so of packed weights and sums, is the same.
struct Taps {
    int count, k;
    ptrdiff_t offset[kMostTaps];
};

inline void taps_of(const Conv& s, const Padded& p, Taps* taps) {
    if (s.groups == 1 && s.dw == 1) {
        taps->count = s.kh, taps->k = s.kw * s.c;
        for (int a = 0; a < s.kh; ++a) taps->offset[a] = a * s.dh * p.row();
    } else {
        taps->count = s.taps(), taps->k = s.ci();
        forward_offsets(s, p, taps->offset);
    }
}

inline void pack_forward(const Conv& s, const float* w, float* to) {
    const int taps = s.taps(), k = s.ci(), o = s.co();
    for (int g = 0; g < s.groups; ++g, w += size_t(o) * k * taps, to += packed_floats(taps, k, o))
        pack(taps, k, o, to, [=](int t, int i, int j) { return w[(size_t(j) * k + i) * taps + t]; });
}

// One image: `source` is padded as forward_source says. after(first, count): all channels of positions are done.
template <class After>
void forward_image(const Conv& s, const Padded& p, const Taps& taps, const float* source, const float* packed, float* y,
                   After&& after) {
    const Grid grid{s.ho, s.wo, s.sh * p.row(), ptrdiff_t(s.sw) * s.c, ptrdiff_t(s.wo) * s.o, s.o};
    const size_t each = packed_floats(s.taps(), s.ci(), s.co());
    const auto group = [&](int g, auto&& then) {
        correlate(grid, source + g * s.ci(), y + g * s.co(), packed + g * each, taps.offset, taps.count, taps.k, s.co(), then);
    };
    for (int g = 0; g + 1 < s.groups; ++g) group(g, Nothing());
    if (s.groups == 1) return group(0, after);
    group(s.groups - 1, Nothing());
    after(0, s.ho * s.wo);
}

// gradient of the input: for each remainder of the input's position by the stride, the taps that reach it

struct Axis {  // one remainder along one axis: input positions r, r + stride, ...: taps and their shifts of the output
    int count;
    int taps[64], shift[64];
};

inline int floor_div(int a, int b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }

inline Axis axis_of(int r, int k, int stride, int pad, int dilation) {
    Axis axis{};
    for (int t = 0; t < k; ++t) {
        const int from = r + pad - t * dilation;
        if (from - floor_div(from, stride) * stride == 0) {
            axis.taps[axis.count] = t;
            axis.shift[axis.count++] = floor_div(from, stride);
        }
    }
    return axis;
}

// Zeros that the output's gradient needs around it along one axis: before and after.
inline void margins(int size, int out, int k, int stride, int pad, int dilation, int* before, int* after) {
    *before = *after = 0;
    for (int r = 0; r < stride && r < size; ++r) {
        const Axis axis = axis_of(r, k, stride, pad, dilation);
        const int last = (size - 1 - r) / stride;
        for (int i = 0; i < axis.count; ++i) {
            if (-axis.shift[i] > *before) *before = -axis.shift[i];
            if (last + axis.shift[i] - (out - 1) > *after) *after = last + axis.shift[i] - (out - 1);
        }
    }
}

inline Padded backward_source(const Conv& s) {
    int top, bottom, left, right;
    margins(s.h, s.ho, s.kh, s.sh, s.ph, s.dh, &top, &bottom);
    margins(s.w, s.wo, s.kw, s.sw, s.pw, s.dw, &left, &right);
    return {top, left, s.ho + top + bottom, s.wo + left + right, s.o};
}

// The classes of input positions, in the order of `pack_backward` and `backward_image`.
template <class Class>
void each_class(const Conv& s, Class&& fn) {
    for (int r = 0; r < s.sh && r < s.h; ++r)
        for (int q = 0; q < s.sw && q < s.w; ++q)
            fn(r, q, axis_of(r, s.kh, s.sh, s.ph, s.dh), axis_of(q, s.kw, s.sw, s.pw, s.dw));
}

inline size_t backward_packed_floats(const Conv& s) {
    return s.groups * packed_floats(s.taps(), s.co(), s.ci());  // a tap belongs to one class
}

inline void pack_backward(const Conv& s, const float* w, float* to) {
    const int taps = s.taps(), k = s.ci(), o = s.co();
    each_class(s, [&](int, int, const Axis& v, const Axis& h) {
        for (int g = 0; g < s.groups; ++g) {
            const float* wg = w + size_t(g) * o * k * taps;
            pack(v.count * h.count, o, k, to, [&](int t, int i, int j) {
                return wg[(size_t(i) * k + j) * taps + v.taps[t / h.count] * s.kw + h.taps[t % h.count]];
            });
            to += packed_floats(v.count * h.count, o, k);
        }
    });
}

inline void backward_image(const Conv& s, const Padded& p, const float* source, const float* packed, float* gx) {
    const float* middle = source + p.top * p.row() + ptrdiff_t(p.left) * s.o;
    ptrdiff_t offset[kMostTaps];
    each_class(s, [&](int r, int q, const Axis& v, const Axis& h) {
        int taps = 0;
        for (int a = 0; a < v.count; ++a)
            for (int b = 0; b < h.count; ++b) offset[taps++] = v.shift[a] * p.row() + ptrdiff_t(h.shift[b]) * s.o;
        const Grid grid{(s.h - 1 - r) / s.sh + 1, (s.w - 1 - q) / s.sw + 1, p.row(), s.o,
                        ptrdiff_t(s.sh) * s.w * s.c, ptrdiff_t(s.sw) * s.c};
        float* to = gx + (ptrdiff_t(r) * s.w + q) * s.c;
        for (int g = 0; g < s.groups; ++g) {
            correlate(grid, middle + g * s.co(), to + g * s.ci(), packed, offset, taps, s.co(), s.ci(), Nothing());
            packed += packed_floats(taps, s.co(), s.ci());
        }
    });
}

}  // namespace HWY_NAMESPACE
}  // namespace clue
