// 3x3 convolutions with stride 1 by Winograd's minimal filtering F(2x2, 3x3): 16 products where 36 were due, in all three
// products (Lavin and Gray 2016; the weights' gradient sums in the transformed domain and transforms once).
#pragma once

#include "norm.h"
#include "weights.h"

namespace clue {
namespace HWY_NAMESPACE {

constexpr int kParts = 16;       // of a transformed 4x4 tile

inline bool is_winograd(const Conv& s) {
    return s.kh == 3 && s.kw == 3 && s.sh == 1 && s.sw == 1 && s.dh == 1 && s.dw == 1 && s.groups == 1 && s.c >= 8 &&
           s.o >= 8 && s.ph <= 2 && s.pw <= 2;
}

// Floats from one part of `count` vectors to the next: not a power of two, or all parts would fall into the same few sets of
// the cache.
inline ptrdiff_t part_stride(int count, int channels) { return ptrdiff_t(count) * channels + 16; }

// Tiles of 2x2 results; images of one strip lie one behind the other, `image` floats apart.
struct Tiles {
    int height, width;  // of the results
    int at_once;        // tiles, about, that a strip should have
    int rows() const { return (height + 1) / 2; }
    int columns() const { return (width + 1) / 2; }
    int strip_rows() const { return columns() >= at_once ? 1 : at_once / columns(); }
    // images that are worth taking together, and tiles of the largest strip
    int images() const { return rows() * columns() >= at_once ? 1 : at_once / (rows() * columns()); }
    int most() const { return strip_rows() * columns(); }
};

// Enough tiles that reading the transformed weights is worth it, and few enough that the tiles stay in the second cache.
inline Tiles tiles_of(int height, int width, int k, int channels) {
    const int weights = k * channels;
    return {height, width, weights > 128 * 128 ? 128 : 32};
}

// The zeros around an image such that every tile finds its 4x4 pixels.
inline Padded tiled(Padded p, const Tiles& tiles) {
    if (p.height < 2 * tiles.rows() + 2) p.height = 2 * tiles.rows() + 2;
    if (p.width < 2 * tiles.columns() + 2) p.width = 2 * tiles.columns() + 2;
    return p;
}

// Where the 3x3 weights of a product from channels k to channels j lie, floats from one to the next; turned: the taps are taken
// from the last to the first, as the input's gradient does.
struct Weights {
    const float* w;
    ptrdiff_t k_step, channel_step;
    bool turned;
};

inline Weights forward_weights(const Conv& s, const float* w) { return {w, 9, ptrdiff_t(s.c) * 9, false}; }
inline Weights backward_weights(const Conv& s, const float* w) { return {w, ptrdiff_t(s.c) * 9, 9, true}; }

// Transformed weights [k][channel] of each part from channel `first` on, in the order of `multiply`; parts are
// packed_floats(1, k, channels) apart.
inline void pack_winograd(const Weights& weights, int k, int first, int channels, float* to) {
    const Floats d;
    const size_t part = packed_floats(1, k, channels);
    alignas(64) float taps[9][kBlock] = {};
    for (int begin = 0; begin < channels; begin += kBlock) {
        const int left = channels - begin < kBlock ? channels - begin : kBlock;
        const int vectors = vectors_of(left);
        const float* w = weights.w + (first + begin) * weights.channel_step;
        for (int i = 0; i < k; ++i, w += weights.k_step) {
            for (int j = 0; j < left; ++j)
                for (int t = 0; t < 9; ++t) taps[weights.turned ? 8 - t : t][j] = w[j * weights.channel_step + t];
            for (int v = 0; v < vectors; ++v, to += kLanes) {
                const Vector fold = hn::Set(d, 0.5f);
                Vector half[4][3];
                for (int b = 0; b < 3; ++b) {
                    const Vector x = hn::Load(d, taps[b] + v * kLanes), y = hn::Load(d, taps[3 + b] + v * kLanes),
                                 z = hn::Load(d, taps[6 + b] + v * kLanes), sum = hn::Add(x, z);
                    half[0][b] = x;
                    half[1][b] = hn::Mul(fold, hn::Add(sum, y));
                    half[2][b] = hn::Mul(fold, hn::Sub(sum, y));
                    half[3][b] = z;
                }
                for (int a = 0; a < 4; ++a) {
                    const Vector* h = half[a];
                    const Vector sum = hn::Add(h[0], h[2]);
                    hn::StoreU(h[0], d, to + (4 * a + 0) * part);
                    hn::StoreU(hn::Mul(fold, hn::Add(sum, h[1])), d, to + (4 * a + 1) * part);
                    hn::StoreU(hn::Mul(fold, hn::Sub(sum, h[1])), d, to + (4 * a + 2) * part);
                    hn::StoreU(h[2], d, to + (4 * a + 3) * part);
                }
            }
        }
    }
}

// Four vectors through the transform of an input tile's rows or columns.
template <class T>
HWY_INLINE void input_line(T& a, T& b, T& c, T& d) {
    const T first = hn::Sub(a, c), second = hn::Add(b, c), third = hn::Sub(c, b), fourth = hn::Sub(b, d);
    a = first, b = second, c = third, d = fourth;
}

// v[part][tile][v_row] of `count` tiles of one row, the first at `source`. Neighbours share two columns.
inline void transform_some(const float* source, ptrdiff_t row, int channels, int count, float* v, ptrdiff_t part, int v_row) {
    each_vector(channels, [=](auto d, int c) {
        using T = hn::Vec<decltype(d)>;
        const float* at = source + c;
        float* to = v + c;
        T x[4][4];  // [column][row], rows transformed
        const auto column = [&](int j) HWY_ATTR {
            for (int i = 0; i < 4; ++i) x[j][i] = hn::LoadU(d, at + i * row + j * channels);
            input_line(x[j][0], x[j][1], x[j][2], x[j][3]);
        };
        const auto store = [&](const T* a, const T* b, const T* c, const T* e) HWY_ATTR {
            for (int i = 0; i < 4; ++i) {
                float* line = to + 4 * i * part;
                hn::StoreU(hn::Sub(a[i], c[i]), d, line);
                hn::StoreU(hn::Add(b[i], c[i]), d, line + part);
                hn::StoreU(hn::Sub(c[i], b[i]), d, line + 2 * part);
                hn::StoreU(hn::Sub(b[i], e[i]), d, line + 3 * part);
            }
            to += v_row;
        };
        column(0), column(1);
        int t = 0;
        for (; t + 2 <= count; t += 2) {
            column(2), column(3);
            store(x[0], x[1], x[2], x[3]);
            at += 4 * ptrdiff_t(channels);
            column(0), column(1);
            store(x[2], x[3], x[0], x[1]);
        }
        if (t < count) {
            column(2), column(3);
            store(x[0], x[1], x[2], x[3]);
        }
    });
}

// A few tiles at a time: their lines of all parts stay in the first cache while one vector after the other fills them.
inline void transform_input(const float* source, ptrdiff_t row, int channels, int count, float* v, ptrdiff_t part, int v_row) {
    constexpr int kFew = 4;
    for (int t = 0; t < count; t += kFew)
        transform_some(source + 2 * ptrdiff_t(t) * channels, row, channels, count - t < kFew ? count - t : kFew,
                       v + ptrdiff_t(t) * v_row, part, v_row);
}

// y [2x2 results][channels] of `count` tiles of one row from m[part][tile][wide]; what lies outside is left out. y's positions
// are y_step floats apart, its rows `row`.
inline void transform_output(const float* m, ptrdiff_t part, int wide, int channels, int count, float* y, ptrdiff_t y_step,
                             ptrdiff_t row, int height, int width) {
    each_vector(channels, [=](auto d, int c) {
        using T = hn::Vec<decltype(d)>;
        const float* at = m + c;
        float* to = y + c;
        for (int t = 0; t < count; ++t, at += wide, to += 2 * y_step) {
            T half[2][4];
            for (int j = 0; j < 4; ++j) {
                T x[4];
                for (int i = 0; i < 4; ++i) x[i] = hn::LoadU(d, at + (4 * i + j) * part);
                half[0][j] = hn::Add(x[0], hn::Add(x[1], x[2]));
                half[1][j] = hn::Sub(hn::Sub(x[1], x[2]), x[3]);
            }
            for (int i = 0; i < 2 && i < height; ++i) {
                hn::StoreU(hn::Add(half[i][0], hn::Add(half[i][1], half[i][2])), d, to + i * row);
                if (2 * t + 1 < width)
                    hn::StoreU(hn::Sub(hn::Sub(half[i][1], half[i][2]), half[i][3]), d, to + i * row + y_step);
            }
        }
    });
}

// The adjoint of `transform_output`, for the weights' gradient: v[part][tile][wide] from g's 2x2 values.
inline void transform_gradient(const float* g, ptrdiff_t row, int channels, int count, int height, int width, float* v,
                               ptrdiff_t part, int wide) {
    each_vector(channels, [=](auto d, int c) {
        using T = hn::Vec<decltype(d)>;
        const float* at = g + c;
        float* to = v + c;
        for (int t = 0; t < count; ++t, at += 2 * ptrdiff_t(channels), to += wide) {
            T x[2][2], half[4][2];
            for (int i = 0; i < 2; ++i)
                for (int j = 0; j < 2; ++j)
                    x[i][j] = i < height && 2 * t + j < width ? hn::LoadU(d, at + i * row + j * channels) : hn::Zero(d);
            for (int j = 0; j < 2; ++j) {
                half[0][j] = x[0][j];
                half[1][j] = hn::Add(x[0][j], x[1][j]);
                half[2][j] = hn::Sub(x[0][j], x[1][j]);
                half[3][j] = hn::Neg(x[1][j]);
            }
            for (int i = 0; i < 4; ++i) {
                hn::StoreU(half[i][0], d, to + (4 * i + 0) * part);
                hn::StoreU(hn::Add(half[i][0], half[i][1]), d, to + (4 * i + 1) * part);
                hn::StoreU(hn::Sub(half[i][0], half[i][1]), d, to + (4 * i + 2) * part);
                hn::StoreU(hn::Neg(half[i][1]), d, to + (4 * i + 3) * part);
            }
        }
    });
}

template <int M, int V>
HWY_INLINE void product_tile(const float* x, ptrdiff_t x_row, int k, const float* w, float* out, ptrdiff_t out_row) {
    const Floats d;
    Vector sum[M][V];
    for (int m = 0; m < M; ++m)
        for (int v = 0; v < V; ++v) sum[m][v] = hn::Zero(d);
    for (int i = 0; i < k; ++i, w += V * kLanes) {
        Vector b[V];
        for (int v = 0; v < V; ++v) b[v] = hn::LoadU(d, w + v * kLanes);
        for (int m = 0; m < M; ++m) {
            const Vector a = hn::Set(d, x[m * x_row + i]);
            for (int v = 0; v < V; ++v) sum[m][v] = hn::MulAdd(a, b[v], sum[m][v]);
        }
    }
    for (int m = 0; m < M; ++m)
        for (int v = 0; v < V; ++v) hn::StoreU(sum[m][v], d, out + m * out_row + v * kLanes);
}

// out[rows][V vectors] = x[rows][k] w[k][V vectors]
template <int V>
void product(const float* x, ptrdiff_t x_row, int rows, int k, const float* w, float* out, ptrdiff_t out_row) {
    for (; rows >= 12 || rows == 6; rows -= 6, x += 6 * x_row, out += 6 * out_row)
        product_tile<6, V>(x, x_row, k, w, out, out_row);
    for (; rows >= 5 && rows != 8; rows -= 5, x += 5 * x_row, out += 5 * out_row)
        product_tile<5, V>(x, x_row, k, w, out, out_row);
    for (; rows >= 4; rows -= 4, x += 4 * x_row, out += 4 * out_row) product_tile<4, V>(x, x_row, k, w, out, out_row);
    for (; rows >= 1; rows -= 1, x += x_row, out += out_row) product_tile<1, V>(x, x_row, k, w, out, out_row);
}

// m[part][tile][padded channels] = v[part][tile][k] w[part][k][channels], `count` tiles; parts of v and m are v_part and
// m_part floats apart, tiles of v v_row.
inline void multiply(const float* v, ptrdiff_t v_part, ptrdiff_t v_row, int count, int k, const float* w, int channels, float* m,
                     ptrdiff_t m_part) {
    const int wide = padded(channels);
    for (int e = 0; e < kParts; ++e, v += v_part, m += m_part)
        for (int begin = 0; begin < channels; begin += kBlock) {
            const int vectors = vectors_of(channels - begin);
            switch (vectors) {
                case 1: product<1>(v, v_row, count, k, w, m + begin, wide); break;
                case 2: product<2>(v, v_row, count, k, w, m + begin, wide); break;
#if HWY_TARGET != HWY_AVX2 && HWY_TARGET != HWY_AVX3 && HWY_TARGET != HWY_AVX3_DL
                case 3: product<3>(v, v_row, count, k, w, m + begin, wide); break;
                case 4: product<4>(v, v_row, count, k, w, m + begin, wide); break;
#endif
            }
            w += size_t(k) * vectors * kLanes;
        }
}

// Calls fn(image, tile row, tiles before it in the strip) for the rows of a strip and done(tiles) after each strip.
template <class Row, class Done>
void each_strip(const Tiles& tiles, int images, Row&& fn, Done&& done) {
    const int all = images * tiles.rows(), step = tiles.strip_rows();
    for (int first = 0; first < all; first += step) {
        const int end = first + step < all ? first + step : all;
        for (int r = first; r < end; ++r) fn(r / tiles.rows(), r % tiles.rows(), (r - first) * tiles.columns());
        done(first, end);
    }
}

inline size_t winograd_floats(const Tiles& tiles, int k, int channels) {
    return kParts * size_t(part_stride(tiles.most(), k) + part_stride(tiles.most(), padded(channels)));
}

// y = the 3x3 correlation of `images` padded images with packed weights; work: winograd_floats. after(image, first, count): such
// positions of an image are done.
template <class After>
void winograd_images(const Tiles& tiles, const Padded& p, const float* source, int images, const float* packed, int channels,
                     float* y, float* work, After&& after) {
    const int k = p.channels, wide = padded(channels);
    const ptrdiff_t v_part = part_stride(tiles.most(), k), m_part = part_stride(tiles.most(), wide);
    float *v = work, *m = work + kParts * v_part;
    const ptrdiff_t row = ptrdiff_t(tiles.width) * channels;
    each_strip(
        tiles, images,
        [&](int image, int r, int before) {
            transform_input(source + image * p.floats() + 2 * r * p.row(), p.row(), k, tiles.columns(),
                            v + ptrdiff_t(before) * k, v_part, k);
        },
        [&](int first, int end) {
            multiply(v, v_part, k, (end - first) * tiles.columns(), k, packed, channels, m, m_part);
            for (int r = first; r < end; ++r) {
                const int image = r / tiles.rows(), at = r % tiles.rows();
                transform_output(m + ptrdiff_t(r - first) * tiles.columns() * wide, m_part, wide, channels,
                                 tiles.columns(), y + (ptrdiff_t(image) * tiles.height + 2 * at) * row, channels, row,
                                 tiles.height - 2 * at, tiles.width);
                after(image, 2 * at * tiles.width, (tiles.height - 2 * at < 2 ? 1 : 2) * tiles.width);
            }
        });
}

// Adds to sums[part][k][padded channels]: `images` padded images and gradients g, whose rows and images are g_row and
// g_image floats apart.
inline void winograd_weight(const Tiles& tiles, const Padded& p, const float* source, int images, const float* g,
                            ptrdiff_t g_row, ptrdiff_t g_image, int channels, float* sums, float* work) {
    const int k = p.channels, wide = padded(channels);
    const ptrdiff_t v_part = part_stride(tiles.most(), k), m_part = part_stride(tiles.most(), wide);
    float *v = work, *m = work + kParts * v_part;
    each_strip(
        tiles, images,
        [&](int image, int r, int before) {
            transform_input(source + image * p.floats() + 2 * r * p.row(), p.row(), k, tiles.columns(),
                            v + ptrdiff_t(before) * k, v_part, k);
            transform_gradient(g + image * g_image + 2 * r * g_row, g_row, channels, tiles.columns(),
                               tiles.height - 2 * r, tiles.width, m + ptrdiff_t(before) * wide, m_part, wide);
        },
        [&](int first, int end) {
            const Walk walk{1, 1, (end - first) * tiles.columns(), 0, 0, k};
            for (int e = 0; e < kParts; ++e)
                outer_all(v + e * v_part, walk, k, m + e * m_part, wide, wide, sums + ptrdiff_t(e) * k * wide, wide);
        });
}

// The gradients [channel][k][3][3] of k channels and `channels` others from sums[part][k][wide], parts `part` floats apart, and
// of `count` such sums, `stride` floats apart. Channels of gw are gw_step floats apart. add: to what gw holds.
inline void unpack_winograd(const float* sums, ptrdiff_t part, int wide, int count, size_t stride, int k, int channels,
                            float* gw, ptrdiff_t gw_step, bool add) {
    const Floats d;
    const Vector fold = hn::Set(d, 0.5f);
    alignas(64) float taps[9][kLanes];
    for (int begin = 0; begin < channels; begin += kLanes) {
        const int left = channels - begin < kLanes ? channels - begin : kLanes;
        for (int i = 0; i < k; ++i) {
            Vector s[4][4];
            for (int e = 0; e < kParts; ++e) {
                const float* at = sums + e * part + ptrdiff_t(i) * wide + begin;
                Vector total = hn::LoadU(d, at);
                for (int c = 1; c < count; ++c) total = hn::Add(total, hn::LoadU(d, at + c * stride));
                s[e / 4][e % 4] = total;
            }
            Vector half[3][4];
            for (int b = 0; b < 4; ++b) {
                half[0][b] = hn::MulAdd(fold, hn::Add(s[1][b], s[2][b]), s[0][b]);
                half[1][b] = hn::Mul(fold, hn::Sub(s[1][b], s[2][b]));
                half[2][b] = hn::MulAdd(fold, hn::Add(s[1][b], s[2][b]), s[3][b]);
            }
            for (int a = 0; a < 3; ++a) {
                const Vector* h = half[a];
                hn::Store(hn::MulAdd(fold, hn::Add(h[1], h[2]), h[0]), d, taps[3 * a]);
                hn::Store(hn::Mul(fold, hn::Sub(h[1], h[2])), d, taps[3 * a + 1]);
                hn::Store(hn::MulAdd(fold, hn::Add(h[1], h[2]), h[3]), d, taps[3 * a + 2]);
            }
            float* to = gw + begin * gw_step + ptrdiff_t(i) * 9;
            for (int j = 0; j < left; ++j)
                for (int t = 0; t < 9; ++t) to[j * gw_step + t] = add ? to[j * gw_step + t] + taps[t][j] : taps[t][j];
        }
    }
}

}  // namespace HWY_NAMESPACE
}  // namespace clue
