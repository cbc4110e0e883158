// Max pooling of images [height][width][channels] and its gradient, over vectors of channels.
#pragma once

#include "norm.h"

namespace clue {
namespace HWY_NAMESPACE {

// Calls fn(offset in the image) for the taps of the window at (row, column) that lie inside the image, in rows.
template <class Fn>
HWY_INLINE void each_tap(const Conv& s, int row, int column, Fn&& fn) {
    for (int i = 0; i < s.kh; ++i) {
        const int y = row * s.sh - s.ph + i * s.dh;
        if (y < 0 || y >= s.h) continue;
        for (int j = 0; j < s.kw; ++j) {
            const int x = column * s.sw - s.pw + j * s.dw;
            if (x >= 0 && x < s.w) fn((size_t(y) * s.w + x) * s.c);
        }
    }
}

// The largest value of a window; one that is not a number stays.
template <class D>
HWY_INLINE hn::Vec<D> window_max(D d, const Conv& s, int row, int column, const float* x) {
    auto best = hn::Set(d, -HUGE_VALF);
    each_tap(s, row, column, [&](size_t at) HWY_ATTR {
        const auto value = hn::LoadU(d, x + at);
        best = hn::IfThenElse(hn::Or(hn::Gt(value, best), hn::IsNaN(value)), value, best);
    });
    return best;
}

inline void max_pool_image(const Conv& s, const float* x, float* y) {
    for (int row = 0; row < s.ho; ++row)
        for (int column = 0; column < s.wo; ++column, y += s.c)
            each_vector(s.c, [&](auto d, int c) HWY_ATTR { hn::StoreU(window_max(d, s, row, column, x + c), d, y + c); });
}

// Each gradient goes to the first of its window's largest values.
inline void max_pool_grad_image(const Conv& s, const float* g, const float* x, float* gx) {
    std::memset(gx, 0, s.image_in() * sizeof(float));
    for (int row = 0; row < s.ho; ++row)
        for (int column = 0; column < s.wo; ++column, g += s.c)
            each_vector(s.c, [&](auto d, int c) HWY_ATTR {
                const auto best = window_max(d, s, row, column, x + c);
                auto left = hn::LoadU(d, g + c);
                each_tap(s, row, column, [&](size_t at) HWY_ATTR {
                    const auto here = hn::Eq(hn::LoadU(d, x + at + c), best);
                    float* to = gx + at + c;
                    hn::StoreU(hn::Add(hn::LoadU(d, to), hn::IfThenElseZero(here, left)), d, to);
                    left = hn::IfThenZeroElse(here, left);
                });
            });
}

}  // namespace HWY_NAMESPACE
}  // namespace clue
