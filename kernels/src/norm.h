// Batch norm over activations [positions][channels], with ReLU and a residual folded in; forward and backward.
#pragma once

#include "conv.h"

namespace clue {
namespace HWY_NAMESPACE {

// Calls fn(tag, vectors, first channel) for blocks of channels: vectors of kLanes while they fit, then single ones.
template <class Fn>
HWY_INLINE void each_block(int channels, Fn&& fn) {
    const Floats d;
    int c = 0;
    for (; c + 4 * kLanes <= channels; c += 4 * kLanes) fn(d, std::integral_constant<int, 4>(), c);
    for (; c + 2 * kLanes <= channels; c += 2 * kLanes) fn(d, std::integral_constant<int, 2>(), c);
    for (; c + kLanes <= channels; c += kLanes) fn(d, std::integral_constant<int, 1>(), c);
    for (; c < channels; ++c) fn(hn::CappedTag<float, 1>(), std::integral_constant<int, 1>(), c);
}

// Calls fn(tag, first channel) for single vectors of channels.
template <class Fn>
HWY_INLINE void each_vector(int channels, Fn&& fn) {
    int c = 0;
    for (; c + kLanes <= channels; c += kLanes) fn(Floats(), c);
    for (; c < channels; ++c) fn(hn::CappedTag<float, 1>(), c);
}

// Sums of one image's channels about its first position, which keeps what is subtracted small:
// out[0:c] that position, out[c:2c] the sum of the differences, out[2c:3c] the sum of their squares.
inline void moments_image(const float* x, int positions, int channels, float* out) {
    each_block(channels, [=](auto d, auto v, int c) {
        constexpr int V = decltype(v)::value;
        using T = hn::Vec<decltype(d)>;
        const size_t lanes = hn::Lanes(d);
        T about[V], sum[2][V], square[2][V];
        for (int i = 0; i < V; ++i) {
            about[i] = hn::LoadU(d, x + c + i * lanes);
            sum[0][i] = sum[1][i] = square[0][i] = square[1][i] = hn::Zero(d);
        }
        const float* at = x + c;
        const auto add = [&](int k) HWY_ATTR {
            for (int i = 0; i < V; ++i) {
                const T difference = hn::Sub(hn::LoadU(d, at + i * lanes), about[i]);
                sum[k][i] = hn::Add(sum[k][i], difference);
                square[k][i] = hn::MulAdd(difference, difference, square[k][i]);
            }
            at += channels;
        };
        for (int p = 0; p + 1 < positions; p += 2) add(0), add(1);
        if (positions & 1) add(0);
        for (int i = 0; i < V; ++i) {
            hn::StoreU(about[i], d, out + c + i * lanes);
            hn::StoreU(hn::Add(sum[0][i], sum[1][i]), d, out + channels + c + i * lanes);
            hn::StoreU(hn::Add(square[0][i], square[1][i]), d, out + 2 * channels + c + i * lanes);
        }
    });
}

// Mean and (population) variance of n images from their `moments_image`, in double (Chan et al. 1979).
inline void moments(const float* parts, int n, int positions, int channels, float* mean, float* var) {
    for (int c = 0; c < channels; ++c) {
        double count = 0, average = 0, squares = 0;
        for (int i = 0; i < n; ++i) {
            const float* part = parts + size_t(i) * 3 * channels + c;
            const double about = part[0], sum = part[channels], square = part[2 * channels];
            const double own = about + sum / positions, spread = square - sum * sum / positions;
            const double gap = own - average, all = count + positions;
            average += gap * positions / all;
            squares += spread + gap * gap * count * positions / all;
            count = all;
        }
        mean[c] = float(average);
        var[c] = float(squares > 0 ? squares / count : 0);
    }
}

// y = (x - mean) * scale + shift, then + residual where there is one, then ReLU where asked for. The difference comes first:
// folded into shift, a mean far above the spread would take its digits.
template <bool kResidual, bool kRelu>
void normalise(const float* x, const float* mean, const float* scale, const float* shift, const float* residual,
               int positions, int channels, float* y) {
    each_block(channels, [=](auto d, auto v, int c) {
        constexpr int V = decltype(v)::value;
        using T = hn::Vec<decltype(d)>;
        const size_t lanes = hn::Lanes(d);
        T about[V], a[V], b[V];
        for (int i = 0; i < V; ++i) {
            about[i] = hn::LoadU(d, mean + c + i * lanes);
            a[i] = hn::LoadU(d, scale + c + i * lanes);
            b[i] = hn::LoadU(d, shift + c + i * lanes);
        }
        for (size_t p = 0, at = c; p < size_t(positions); ++p, at += channels)
            for (int i = 0; i < V; ++i) {
                T value = hn::MulAdd(hn::Sub(hn::LoadU(d, x + at + i * lanes), about[i]), a[i], b[i]);
                if (kResidual) value = hn::Add(value, hn::LoadU(d, residual + at + i * lanes));
                if (kRelu) value = hn::Max(value, hn::Zero(d));
                hn::StoreU(value, d, y + at + i * lanes);
            }
    });
}

// What the backward pass of a batch norm reads: the gradient g (+ more), where `out` > 0 if there is one.
struct Masked {
    const float *g, *more, *out;
};

template <bool kMore, bool kMask, class D>
HWY_INLINE hn::Vec<D> gradient_at(D d, const Masked& m, size_t at) {
    hn::Vec<D> g = hn::LoadU(d, m.g + at);
    if (kMore) g = hn::Add(g, hn::LoadU(d, m.more + at));
    if (kMask) g = hn::IfThenElseZero(hn::Gt(hn::LoadU(d, m.out + at), hn::Zero(d)), g);
    return g;
}

// out[0:c] = sum of g, out[c:2c] = sum of g (x - mean), over the positions; `masked` receives g if not null.
template <bool kMore, bool kMask, bool kKeep>
void norm_sums(const Masked& m, const float* x, const float* mean, int positions, int channels, float* kept,
               float* out) {
    each_block(channels, [=](auto d, auto v, int c) {
        constexpr int V = decltype(v)::value;
        using T = hn::Vec<decltype(d)>;
        const size_t lanes = hn::Lanes(d);
        T about[V], sum[V], product[V];
        for (int i = 0; i < V; ++i) {
            about[i] = hn::LoadU(d, mean + c + i * lanes);
            sum[i] = product[i] = hn::Zero(d);
        }
        for (size_t p = 0, at = c; p < size_t(positions); ++p, at += channels)
            for (int i = 0; i < V; ++i) {
                const T g = gradient_at<kMore, kMask>(d, m, at + i * lanes);
                if (kKeep) hn::StoreU(g, d, kept + at + i * lanes);
                sum[i] = hn::Add(sum[i], g);
                product[i] = hn::MulAdd(g, hn::Sub(hn::LoadU(d, x + at + i * lanes), about[i]), product[i]);
            }
        for (int i = 0; i < V; ++i) {
            hn::StoreU(sum[i], d, out + c + i * lanes);
            hn::StoreU(product[i], d, out + channels + c + i * lanes);
        }
    });
}

// gx = a g + b (x - mean) + e for each channel; abe: the three [channels], one behind the other.
template <bool kMore, bool kMask>
void norm_apply(const Masked& m, const float* x, const float* mean, const float* abe, int positions, int channels,
                float* gx) {
    each_block(channels, [=](auto d, auto v, int c) {
        constexpr int V = decltype(v)::value;
        using T = hn::Vec<decltype(d)>;
        const size_t lanes = hn::Lanes(d);
        T about[V], a[V], b[V], e[V];
        for (int i = 0; i < V; ++i) {
            about[i] = hn::LoadU(d, mean + c + i * lanes);
            a[i] = hn::LoadU(d, abe + c + i * lanes);
            b[i] = hn::LoadU(d, abe + channels + c + i * lanes);
            e[i] = hn::LoadU(d, abe + 2 * channels + c + i * lanes);
        }
        for (size_t p = 0, at = c; p < size_t(positions); ++p, at += channels)
            for (int i = 0; i < V; ++i) {
                const T g = gradient_at<kMore, kMask>(d, m, at + i * lanes);
                const T rest = hn::MulAdd(b[i], hn::Sub(hn::LoadU(d, x + at + i * lanes), about[i]), e[i]);
                hn::StoreU(hn::MulAdd(a[i], g, rest), d, gx + at + i * lanes);
            }
    });
}

}  // namespace HWY_NAMESPACE
}  // namespace clue
