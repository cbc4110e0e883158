// Batch norm over activations [positions][channels], with ReLU and a residual folded in; forward and backward.
#pragma once

#include "conv.h"
#include "kernels.h"

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

// Sums of an image's channels about its first position, which keeps what is subtracted small:
// out[0:c] that position, out[c:2c] the sum of the differences, out[2c:3c] the sum of their squares. An image may come in
// several pieces; `start`: x is its first.
inline void moments_piece(const float* x, int positions, int channels, bool start, float* out) {
    if (start) {
        std::memcpy(out, x, channels * sizeof(float));
        std::memset(out + channels, 0, 2 * size_t(channels) * sizeof(float));
    }
    each_block(channels, [=](auto d, auto v, int c) {
        constexpr int V = decltype(v)::value;
        using T = hn::Vec<decltype(d)>;
        const size_t lanes = hn::Lanes(d);
        T about[V], sum[2][V], square[2][V];
        for (int i = 0; i < V; ++i) {
            about[i] = hn::LoadU(d, out + c + i * lanes);
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
        const auto total = [&](const T& first, const T& second, float* to) HWY_ATTR {
            hn::StoreU(hn::Add(hn::LoadU(d, to), hn::Add(first, second)), d, to);
        };
        for (int i = 0; i < V; ++i) {
            total(sum[0][i], sum[1][i], out + channels + c + i * lanes);
            total(square[0][i], square[1][i], out + 2 * channels + c + i * lanes);
        }
    });
}

// Mean and (population) variance of n images from their `moments_piece`, in double (Chan et al. 1979).
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

// What a norm does to a channel: (x - mean) * scale + shift, clamped. The difference comes first: folded into shift, a mean far
// above the spread would take its digits.
struct Affine {
    const float *mean, *scale, *shift;
    float low, high;
};

// y = the norm of x, with + residual before the clamp where there is one.
template <bool kResidual, bool kClamp>
void normalise(const Affine& f, const float* x, const float* residual, int positions, int channels, float* y) {
    each_block(channels, [=](auto d, auto v, int c) {
        constexpr int V = decltype(v)::value;
        using T = hn::Vec<decltype(d)>;
        const size_t lanes = hn::Lanes(d);
        const T low = hn::Set(d, f.low), high = hn::Set(d, f.high);
        T about[V], a[V], b[V];
        for (int i = 0; i < V; ++i) {
            about[i] = hn::LoadU(d, f.mean + c + i * lanes);
            a[i] = hn::LoadU(d, f.scale + c + i * lanes);
            b[i] = hn::LoadU(d, f.shift + c + i * lanes);
        }
        for (size_t p = 0, at = c; p < size_t(positions); ++p, at += channels)
            for (int i = 0; i < V; ++i) {
                T value = hn::MulAdd(hn::Sub(hn::LoadU(d, x + at + i * lanes), about[i]), a[i], b[i]);
                if (kResidual) value = hn::Add(value, hn::LoadU(d, residual + at + i * lanes));
                if (kClamp) value = hn::Min(hn::Max(value, low), high);
                hn::StoreU(value, d, y + at + i * lanes);
            }
    });
}

// What the backward pass of a norm reads: the gradient g (+ more), masked.
struct Masked {
    const float *g, *more, *out;
};

// One vector of it; own: the norm of x before the clamp.
template <bool kMore, Mask kMask, class D, class T>
HWY_INLINE T gradient_at(D d, const Masked& m, size_t at, T own, T low, T high) {
    T g = hn::LoadU(d, m.g + at);
    if (kMore) g = hn::Add(g, hn::LoadU(d, m.more + at));
    if (kMask == Mask::kNone) return g;
    const T z = kMask == Mask::kOut ? hn::LoadU(d, m.out + at) : own;
    return hn::IfThenElseZero(hn::And(hn::Gt(z, low), hn::Lt(z, high)), g);
}

// Goes over positions: fn(vector number, offset, masked gradient, x - mean), vectors of a block from channel c on.
template <bool kMore, Mask kMask, int V, class D, class Fn>
HWY_INLINE void each_gradient(D d, const Affine& f, const Masked& m, const float* x, int c, int positions, int channels,
                              Fn&& fn) {
    using T = hn::Vec<D>;
    const size_t lanes = hn::Lanes(d);
    const T low = hn::Set(d, f.low), high = hn::Set(d, f.high);
    T about[V], scale[V], shift[V];
    for (int i = 0; i < V; ++i) {
        about[i] = hn::LoadU(d, f.mean + c + i * lanes);
        scale[i] = hn::LoadU(d, f.scale + c + i * lanes);
        shift[i] = hn::LoadU(d, f.shift + c + i * lanes);
    }
    for (size_t p = 0, at = c; p < size_t(positions); ++p, at += channels)
        for (int i = 0; i < V; ++i) {
            const T centred = hn::Sub(hn::LoadU(d, x + at + i * lanes), about[i]);
            const T own = hn::MulAdd(centred, scale[i], shift[i]);
            fn(i, at + i * lanes, gradient_at<kMore, kMask>(d, m, at + i * lanes, own, low, high), centred);
        }
}

// out[0:c] = sum of g, out[c:2c] = sum of g (x - mean), over the positions; `kept` receives g if asked for.
template <bool kMore, Mask kMask, bool kKeep>
void norm_sums(const Affine& f, const Masked& m, const float* x, int positions, int channels, float* kept, float* out) {
    each_block(channels, [=](auto d, auto v, int c) {
        constexpr int V = decltype(v)::value;
        using T = hn::Vec<decltype(d)>;
        const size_t lanes = hn::Lanes(d);
        T sum[V], product[V];
        for (int i = 0; i < V; ++i) sum[i] = product[i] = hn::Zero(d);
        each_gradient<kMore, kMask, V>(d, f, m, x, c, positions, channels, [&](int i, size_t at, T g, T centred) HWY_ATTR {
            if (kKeep) hn::StoreU(g, d, kept + at);
            sum[i] = hn::Add(sum[i], g);
            product[i] = hn::MulAdd(g, centred, product[i]);
        });
        for (int i = 0; i < V; ++i) {
            hn::StoreU(sum[i], d, out + c + i * lanes);
            hn::StoreU(product[i], d, out + channels + c + i * lanes);
        }
    });
}

// gx = a g + b (x - mean) + e for each channel; abe: the three [channels], one behind the other.
template <bool kMore, Mask kMask>
void norm_apply(const Affine& f, const Masked& m, const float* x, const float* abe, int positions, int channels, float* gx) {
    each_block(channels, [=](auto d, auto v, int c) {
        constexpr int V = decltype(v)::value;
        using T = hn::Vec<decltype(d)>;
        const size_t lanes = hn::Lanes(d);
        T a[V], b[V], e[V];
        for (int i = 0; i < V; ++i) {
            a[i] = hn::LoadU(d, abe + c + i * lanes);
            b[i] = hn::LoadU(d, abe + channels + c + i * lanes);
            e[i] = hn::LoadU(d, abe + 2 * channels + c + i * lanes);
        }
        each_gradient<kMore, kMask, V>(d, f, m, x, c, positions, channels, [&](int i, size_t at, T g, T centred) HWY_ATTR {
            hn::StoreU(hn::MulAdd(a[i], g, hn::MulAdd(b[i], centred, e[i])), d, gx + at);
        });
    });
}

}  // namespace HWY_NAMESPACE
}  // namespace clue
