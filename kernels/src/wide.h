// Winograd for many channels: the batch is transformed as a whole, then work is dealt by blocks of channels. A block's weights are
// transformed where they are used and its sums written once: with samples dealt out instead, 9 to 16 MB of each would be
// streamed for every few images.
#pragma once

#include "winograd.h"

namespace clue {
namespace HWY_NAMESPACE {

constexpr int kWide = 2 * kBlock;   // channels of a unit of a correlation
constexpr int kAcross = 4 * kBlock, kDeep = 192;  // output and input channels of a unit of the weights' gradient
constexpr int kTiles = 96;         // that it takes at a time

inline bool is_wide(const Conv& s) { return is_winograd(s) && s.c * s.o > 256 * 256; }
inline bool has_wide_sums(const Conv& s) { return is_winograd(s) && s.c * s.o > 128 * 128; }

// Transformed values [part][tile][channel] of some images.
struct Transformed {
    int images, each, channels;  // images at a time, tiles of an image
    int row() const { return padded(channels) + 16; }  // not a power of two, see part_stride
    ptrdiff_t part() const { return part_stride(images * each, row()); }
    size_t floats() const { return kParts * size_t(part()); }
};

// As many images as keep the transformed values in a few MB, whatever the batch.
inline Transformed transformed(const Tiles& tiles, int n, int channels, int most_channels) {
    const int each = tiles.rows() * tiles.columns(), images = (1 << 17) / most_channels / each;
    return {images < 1 ? 1 : (images > n ? n : images), each, channels};
}

// `count` images x [h][w][channels], padded as p says.
inline void wide_input(const Tiles& tiles, const Padded& p, const Transformed& shape, int count, const float* x, int h, int w,
                       float* v, const Parallel& parallel) {
    const int tasks = tasks_of(count);
    parallel(tasks, [&](size_t task) {
        float* source = scratch(p.floats());
        std::memset(source, 0, p.floats() * sizeof(float));
        for (int i = first_of(task, tasks, count); i < first_of(task + 1, tasks, count); ++i) {
            place(p, x + size_t(i) * h * w * p.channels, h, w, source, Plain());
            for (int r = 0; r < tiles.rows(); ++r)
                transform_input(source + 2 * r * p.row(), p.row(), p.channels, tiles.columns(),
                                v + (ptrdiff_t(i) * shape.each + r * tiles.columns()) * shape.row(), shape.part(), shape.row());
        }
    });
}

// `count` gradients g [height][width][channels].
inline void wide_gradient(const Tiles& tiles, const Transformed& shape, int count, const float* g, float* v,
                          const Parallel& parallel) {
    const int tasks = tasks_of(count);
    const ptrdiff_t row = ptrdiff_t(tiles.width) * shape.channels;
    parallel(tasks, [&](size_t task) {
        for (int i = first_of(task, tasks, count); i < first_of(task + 1, tasks, count); ++i)
            for (int r = 0; r < tiles.rows(); ++r)
                transform_gradient(g + (ptrdiff_t(i) * tiles.height + 2 * r) * row, row, shape.channels, tiles.columns(),
                                   tiles.height - 2 * r, tiles.width,
                                   v + (ptrdiff_t(i) * shape.each + r * tiles.columns()) * shape.row(), shape.part(),
                                   shape.row());
    });
}

// y = the 3x3 correlation of n images x [h][w][p.channels]; v: room for `shape`.
inline void wide_correlate(const Tiles& tiles, const Padded& p, const Transformed& shape, const Weights& weights, int n,
                           const float* x, int h, int w, int channels, float* y, float* v, const Parallel& parallel) {
    const int k = p.channels;
    const ptrdiff_t row = ptrdiff_t(tiles.width) * channels;
    for (int first = 0; first < n; first += shape.images) {
        const int images = n - first < shape.images ? n - first : shape.images, count = images * shape.each;
        wide_input(tiles, p, shape, images, x + size_t(first) * h * w * k, h, w, v, parallel);
        parallel((channels + kWide - 1) / kWide, [&](size_t unit) {
            const int begin = int(unit) * kWide, left = channels - begin < kWide ? channels - begin : kWide;
            const ptrdiff_t m_part = part_stride(count, padded(left));
            const size_t packed_size = kParts * packed_floats(1, k, left);
            float *packed = scratch(packed_size + kParts * m_part), *m = packed + packed_size;
            pack_winograd(weights, k, begin, left, packed);
            multiply(v, shape.part(), shape.row(), count, k, packed, left, m, m_part);
            for (int i = 0; i < images; ++i)
                for (int r = 0; r < tiles.rows(); ++r)
                    transform_output(m + (ptrdiff_t(i) * shape.each + r * tiles.columns()) * padded(left), m_part, padded(left),
                                     left, tiles.columns(), y + (ptrdiff_t(first + i) * tiles.height + 2 * r) * row + begin,
                                     channels, row, tiles.height - 2 * r, tiles.width);
        });
    }
}

// The weights' gradient gw [o][c][3][3]; v and m: room for `in` and `out`.
inline void wide_weight(const Conv& s, const Tiles& grid, const Padded& p, const Transformed& in, const Transformed& out,
                        const float* x, const float* g, float* gw, float* v, float* m, const Parallel& parallel) {
    const int deep = (s.c + kDeep - 1) / kDeep;
    for (int first = 0; first < s.n; first += in.images) {
        const int images = s.n - first < in.images ? s.n - first : in.images;
        wide_input(grid, p, in, images, x + first * s.image_in(), s.h, s.w, v, parallel);
        wide_gradient(grid, out, images, g + first * s.image_out(), m, parallel);
        parallel(size_t(deep) * ((s.o + kAcross - 1) / kAcross), [&](size_t unit) {
            const int begin = int(unit) / deep * kAcross, left = s.o - begin < kAcross ? s.o - begin : kAcross, wide = padded(left);
            const int from = s.c * (int(unit) % deep) / deep, k = s.c * (int(unit) % deep + 1) / deep - from;
            const int tiles = images * in.each;
            float* sums = scratch(kParts * size_t(k) * wide);
            std::memset(sums, 0, kParts * size_t(k) * wide * sizeof(float));
            for (int e = 0; e < kParts; ++e)
                for (int t = 0; t < tiles; t += kTiles)
                    outer_all(v + e * in.part() + ptrdiff_t(t) * in.row() + from,
                              {1, 1, tiles - t < kTiles ? tiles - t : kTiles, 0, 0, in.row()}, k,
                              m + e * out.part() + ptrdiff_t(t) * out.row() + begin, out.row(), wide,
                              sums + size_t(e) * k * wide, wide);
            unpack_winograd(sums, ptrdiff_t(k) * wide, wide, 1, 0, k, left, gw + (size_t(begin) * s.c + from) * 9,
                            ptrdiff_t(s.c) * 9, first > 0);
        });
    }
}

}  // namespace HWY_NAMESPACE
}  // namespace clue
