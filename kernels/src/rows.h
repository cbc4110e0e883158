// What transformers need besides products, in one pass each: layer norm over rows [rows][channels] and its gradients, GELU and
// its gradient; and SGD.
#pragma once

#include <hwy/contrib/math/math-inl.h>

#include <cmath>

#include "norm.h"

namespace clue {
namespace HWY_NAMESPACE {

// The sum over channels of fn(tag, channel), a vector.
template <class Fn>
HWY_INLINE float row_sum(int channels, Fn&& fn) {
    const Floats d;
    const hn::CappedTag<float, 1> one;
    Vector total = hn::Zero(d);
    int c = 0;
    for (; c + kLanes <= channels; c += kLanes) total = hn::Add(total, fn(d, c));
    float sum = hn::GetLane(hn::SumOfLanes(d, total));
    for (; c < channels; ++c) sum += hn::GetLane(fn(one, c));
    return sum;
}

// y = (x - mean) * invstd * weight + bias of each row; mean and invstd, [rows], may be null.
inline void layer_norm_rows(const float* x, const float* weight, const float* bias, float epsilon, int rows, int channels,
                            float* y, float* mean, float* invstd) {
    for (int r = 0; r < rows; ++r, x += channels, y += channels) {
        const float average = row_sum(channels, [=](auto d, int c) HWY_ATTR { return hn::LoadU(d, x + c); }) / channels;
        const float squares = row_sum(channels, [=](auto d, int c) HWY_ATTR {
            const auto centred = hn::Sub(hn::LoadU(d, x + c), hn::Set(d, average));
            return hn::Mul(centred, centred);
        });
        const float inverse = 1 / std::sqrt(squares / channels + epsilon);
        each_vector(channels, [=](auto d, int c) HWY_ATTR {
            const auto centred = hn::Sub(hn::LoadU(d, x + c), hn::Set(d, average));
            const auto scale = hn::Mul(hn::LoadU(d, weight + c), hn::Set(d, inverse));
            hn::StoreU(hn::MulAdd(centred, scale, hn::LoadU(d, bias + c)), d, y + c);
        });
        if (mean) mean[r] = average;
        if (invstd) invstd[r] = inverse;
    }
}

// gx of each row; what the rows add to the gradients of weight and bias is added to gw and gb.
inline void layer_norm_grad_rows(const float* g, const float* x, const float* mean, const float* invstd, const float* weight,
                                 int rows, int channels, float* gx, float* gw, float* gb) {
    for (int r = 0; r < rows; ++r, g += channels, x += channels, gx += channels) {
        const float average = mean[r], inverse = invstd[r];
        const auto normalised = [=](auto d, int c) HWY_ATTR {
            return hn::Mul(hn::Sub(hn::LoadU(d, x + c), hn::Set(d, average)), hn::Set(d, inverse));
        };
        const auto scaled = [=](auto d, int c) HWY_ATTR { return hn::Mul(hn::LoadU(d, g + c), hn::LoadU(d, weight + c)); };
        const float level = row_sum(channels, scaled) / channels;
        const float along = row_sum(channels, [=](auto d, int c) HWY_ATTR { return hn::Mul(scaled(d, c), normalised(d, c)); }) /
                            channels;
        each_vector(channels, [=](auto d, int c) HWY_ATTR {
            const auto own = normalised(d, c), gradient = hn::LoadU(d, g + c);
            const auto rest = hn::NegMulAdd(own, hn::Set(d, along), hn::Sub(scaled(d, c), hn::Set(d, level)));
            hn::StoreU(hn::Mul(rest, hn::Set(d, inverse)), d, gx + c);
            hn::StoreU(hn::MulAdd(gradient, own, hn::LoadU(d, gw + c)), d, gw + c);
            hn::StoreU(hn::Add(gradient, hn::LoadU(d, gb + c)), d, gb + c);
        });
    }
}

// The normal distribution's function Phi and exp(-x^2 / 2), phi but for its factor. erf as Abramowitz and Stegun 7.1.26, within
// 1.5e-7, whose exponential is phi's.
template <class T>
struct Normal {
    T cdf, fall;
};

template <class D, class T = hn::Vec<D>>
HWY_INLINE Normal<T> normal_at(D d, T value) {
    const T one = hn::Set(d, 1.0f);
    const T t = hn::Div(one, hn::MulAdd(hn::Abs(value), hn::Set(d, 0.3275911f * 0.70710678f), one));
    T poly = hn::MulAdd(t, hn::Set(d, 1.061405429f), hn::Set(d, -1.453152027f));
    for (const float next : {1.421413741f, -0.284496736f, 0.254829592f}) poly = hn::MulAdd(t, poly, hn::Set(d, next));
    const T fall = hn::Exp(d, hn::Mul(hn::Mul(value, value), hn::Set(d, -0.5f)));
    const T tail = hn::Mul(hn::Mul(hn::Set(d, 0.5f), hn::Mul(t, poly)), fall);  // Phi(-|x|)
    return {hn::IfThenElse(hn::Lt(value, hn::Zero(d)), tail, hn::Sub(one, tail)), fall};
}

// y = x Phi(x).
template <class D>
HWY_INLINE void gelu_at(D d, const float* x, float* y) {
    const auto value = hn::LoadU(d, x);
    hn::StoreU(hn::Mul(value, normal_at(d, value).cdf), d, y);
}

// gx = g (Phi(x) + x phi(x)), the gradient of x Phi(x).
template <class D>
HWY_INLINE void gelu_grad_at(D d, const float* g, const float* x, float* gx) {
    const auto value = hn::LoadU(d, x);
    const auto normal = normal_at(d, value);
    const auto slope = hn::MulAdd(hn::Mul(value, hn::Set(d, 0.39894228f)), normal.fall, normal.cdf);
    hn::StoreU(hn::Mul(hn::LoadU(d, g), slope), d, gx);
}

inline void gelu_some(const float* x, size_t count, float* y) {
    size_t i = 0;
    for (; i + kLanes <= count; i += kLanes) gelu_at(Floats(), x + i, y + i);
    for (; i < count; ++i) gelu_at(hn::CappedTag<float, 1>(), x + i, y + i);
}

inline void gelu_grad_some(const float* g, const float* x, size_t count, float* gx) {
    size_t i = 0;
    for (; i + kLanes <= count; i += kLanes) gelu_grad_at(Floats(), g + i, x + i, gx + i);
    for (; i < count; ++i) gelu_grad_at(hn::CappedTag<float, 1>(), g + i, x + i, gx + i);
}

// One vector of a step of SGD.
template <class D>
HWY_INLINE void sgd_at(D d, const Sgd& s, const Piece& piece, size_t at) {
    auto g = hn::LoadU(d, piece.g + (at - piece.first));
    if (s.mask) g = hn::Mul(g, hn::LoadU(d, s.mask + at));
    const auto moved = hn::MulAdd(hn::Set(d, s.momentum), hn::LoadU(d, s.v + at), g);
    const auto to = hn::NegMulAdd(hn::Set(d, s.lr), moved, hn::LoadU(d, s.w + at));
    hn::StoreU(moved, d, s.moved + at);
    hn::StoreU(to, d, s.to + at);
}

inline void sgd_some(const Sgd& s, size_t first, size_t end) {
    for (int i = 0; i < s.pieces_count; ++i) {
        const Piece& piece = s.pieces[i];
        const size_t behind = i + 1 < s.pieces_count ? s.pieces[i + 1].first : s.count;
        size_t at = piece.first < first ? first : piece.first;
        const size_t stop = behind < end ? behind : end;
        for (; at + kLanes <= stop; at += kLanes) sgd_at(Floats(), s, piece, at);
        for (; at < stop; ++at) sgd_at(hn::CappedTag<float, 1>(), s, piece, at);
    }
}

}  // namespace HWY_NAMESPACE
}  // namespace clue
