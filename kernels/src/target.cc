// The kernels for the instruction set that this file is compiled for (CLUE_TARGET names the function).
#include <cmath>
#include <type_traits>

#include "kernels.h"
#include "norm.h"

#include "depthwise.h"
#include "pool.h"
#include "rows.h"
#include "wide.h"

namespace clue {
namespace HWY_NAMESPACE {

// Floats behind the end of a gradient that `outer` may read where channels do not fill a vector.
constexpr int kBeyond = 64;

static size_t rounded(size_t floats) { return (floats + 15) / 16 * 16; }

// Which way a convolution's products are taken.
enum class Way { kDirect, kDepthwise, kWinograd, kWide };

static Way way_of(const Conv& s) {
    if (is_depthwise(s)) return Way::kDepthwise;
    return is_wide(s) ? Way::kWide : (is_winograd(s) ? Way::kWinograd : Way::kDirect);
}

// Calls fn(first image, images) for a task's images, at most `most` at a time.
template <class Fn>
static void each_group(size_t task, int tasks, int n, int most, Fn&& fn) {
    const int end = first_of(task + 1, tasks, n);
    for (int i = first_of(task, tasks, n); i < end; i += most) fn(i, end - i < most ? end - i : most);
}

// Forward by samples; `done(image, first, count)` follows positions while they are in the cache.
template <class Done>
static void conv_samples(Way way, const Conv& s, const float* x, const float* w, float* y, float* packed,
                         const Parallel& parallel, Done&& done) {
    const Tiles tiles = tiles_of(s.ho, s.wo, s.c, s.o);
    const Padded p = way == Way::kWinograd ? tiled(forward_source(s), tiles) : forward_source(s);
    const int tasks = tasks_of(s.n), most = way == Way::kWinograd ? tiles.images() : 1;
    if (way == Way::kDepthwise) pack_depthwise(s, w, packed);
    else if (way == Way::kDirect) pack_forward(s, w, packed);
    else pack_winograd(forward_weights(s, w), s.c, 0, s.o, packed);
    const bool copies = s.ph || s.pw || way == Way::kWinograd;
    Taps taps;
    ptrdiff_t offset[kMostTaps];
    taps_of(s, p, &taps);
    forward_offsets(s, p, offset);
    parallel(tasks, [&](size_t task) {
        const size_t source_size = rounded(most * p.floats());
        float* source = copies ? scratch(source_size + (way == Way::kWinograd ? winograd_floats(tiles, s.c, s.o) : 0)) : nullptr;
        if (copies) std::memset(source, 0, source_size * sizeof(float));
        each_group(task, tasks, s.n, most, [&](int i, int count) {
            const float* image = x + i * s.image_in();
            float* to = y + i * s.image_out();
            for (int k = 0; copies && k < count; ++k)
                place(p, image + k * s.image_in(), s.h, s.w, source + k * p.floats(), Plain());
            const auto after = [&](int first, int positions) { done(i, first, positions); };
            const auto several = [&](int k, int first, int positions) { done(i + k, first, positions); };
            if (way == Way::kDepthwise) depthwise_forward(s, p, offset, copies ? source : image, packed, to, after);
            else if (way == Way::kDirect) forward_image(s, p, taps, copies ? source : image, packed, to, after);
            else winograd_images(tiles, p, source, count, packed, s.o, to, source + source_size, several);
        });
    });
}

static size_t conv_packed_floats(Way way, const Conv& s) {
    if (way == Way::kDepthwise) return size_t(s.taps()) * s.c;
    return way == Way::kWinograd ? kParts * packed_floats(1, s.c, s.o) : s.groups * packed_floats(s.taps(), s.ci(), s.co());
}

static void conv(const Conv& s, const float* x, const float* w, const float* bias, float* y, float* mean, float* var,
                 const Parallel& parallel) {
    const Way way = way_of(s);
    const Tiles tiles = tiles_of(s.ho, s.wo, s.c, s.o);
    const Transformed shape = transformed(tiles, s.n, s.c, s.c > s.o ? s.c : s.o);
    const size_t work_size = rounded(way == Way::kWide ? shape.floats() : conv_packed_floats(way, s));
    const int positions = s.ho * s.wo;
    float *work = scratch_shared(work_size + size_t(s.n) * 3 * s.o), *parts = work + work_size;
    const auto done = [&](int image, int first, int count) {
        float* to = y + image * s.image_out() + size_t(first) * s.o;
        for (int q = 0; bias && q < count; ++q)
            for (int c = 0; c < s.o; ++c) to[size_t(q) * s.o + c] += bias[c];
        if (mean) moments_piece(to, count, s.o, first == 0, parts + size_t(image) * 3 * s.o);
    };
    if (way == Way::kWide) {
        const int tasks = tasks_of(s.n);
        wide_correlate(tiles, tiled(forward_source(s), tiles), shape, forward_weights(s, w), s.n, x, s.h, s.w, s.o, y, work,
                       parallel);
        parallel(tasks, [&](size_t task) {
            each_group(task, tasks, s.n, 1, [&](int i, int) { done(i, 0, positions); });
        });
    } else {
        conv_samples(way, s, x, w, y, work, parallel, done);
    }
    if (mean) moments(parts, s.n, positions, s.o, mean, var);
}

// Both gradients by samples, of the ways whose sums are few: each task has its own.
static void grad_samples(Way way, const Conv& s, const float* g, const float* x, const float* w, float* gx, float* gw,
                         const Parallel& parallel) {
    const Tiles tiles = tiles_of(s.ho, s.wo, s.c, s.o), back = tiles_of(s.h, s.w, s.o, s.c);
    Padded p = forward_source(s), q = backward_source(s);
    size_t packed_size = size_t(s.taps()) * s.c, sums_size = packed_size, work_size = 0;
    int most = 1;
    if (way == Way::kWinograd) {
        p = tiled(p, tiles), q = tiled(q, back);
        packed_size = kParts * packed_floats(1, s.o, s.c), sums_size = kParts * size_t(s.c) * padded(s.o);
        work_size = winograd_floats(tiles, s.c, s.o);
        if (winograd_floats(back, s.o, s.c) > work_size) work_size = winograd_floats(back, s.o, s.c);
        most = tiles.images();
    }
    packed_size = gx ? rounded(packed_size) : 0, sums_size = gw ? rounded(sums_size) : 0;
    const int tasks = tasks_of(s.n);
    float* packed = scratch_shared(packed_size + tasks * sums_size);
    float* sums = packed + packed_size;
    if (gx && way == Way::kDepthwise) pack_depthwise(s, w, packed);
    else if (gx) pack_winograd(backward_weights(s, w), s.o, 0, s.c, packed);
    const size_t source_size = gw ? rounded(most * p.floats()) : 0, gradient_size = rounded(most * q.floats() + kBeyond);
    ptrdiff_t offset[kMostTaps];
    forward_offsets(s, p, offset);
    parallel(tasks, [&](size_t task) {
        float* source = scratch(source_size + gradient_size + work_size);
        float *gradient = source + source_size, *work = gradient + gradient_size;
        std::memset(source, 0, (source_size + gradient_size) * sizeof(float));
        float* own = sums + task * sums_size;
        if (gw) std::memset(own, 0, sums_size * sizeof(float));
        const float* middle = gradient + q.top * q.row() + ptrdiff_t(q.left) * q.channels;
        each_group(task, tasks, s.n, most, [&](int i, int count) {
            float* to = gx ? gx + i * s.image_in() : nullptr;
            for (int k = 0; k < count; ++k) {
                place(q, g + (i + k) * s.image_out(), s.ho, s.wo, gradient + k * q.floats(), Plain());
                if (gw) place(p, x + (i + k) * s.image_in(), s.h, s.w, source + k * p.floats(), Plain());
            }
            if (way == Way::kDepthwise) {
                if (gw) depthwise_weight(s, p, offset, source, middle, q.row(), own);
                if (gx) depthwise_backward(s, q, gradient, packed, to);
            } else {
                if (gw) winograd_weight(tiles, p, source, count, middle, q.row(), q.floats(), s.o, own, work);
                if (gx) winograd_images(back, q, gradient, count, packed, s.c, to, work, [](int, int, int) {});
            }
        });
    });
    if (gw && way == Way::kDepthwise) unpack_depthwise(s, sums, tasks, sums_size, gw);
    else if (gw) unpack_winograd(sums, ptrdiff_t(s.c) * padded(s.o), padded(s.o), tasks, sums_size, s.c, s.o, gw, ptrdiff_t(s.c) * 9, false);
}

static void grad_wide(const Conv& s, const float* g, const float* x, const float* w, float* gx, float* gw,
                      const Parallel& parallel) {
    const Tiles tiles = tiles_of(s.ho, s.wo, s.c, s.o), back = tiles_of(s.h, s.w, s.o, s.c);
    const int most = s.c > s.o ? s.c : s.o;
    if (gw) {
        const Transformed in = transformed(tiles, s.n, s.c, most), out = transformed(tiles, s.n, s.o, most);
        float* v = scratch_shared(rounded(in.floats()) + out.floats());
        wide_weight(s, tiles, tiled(forward_source(s), tiles), in, out, x, g, gw, v, v + rounded(in.floats()), parallel);
    }
    if (gx && !is_wide(s)) grad_samples(Way::kWinograd, s, g, x, w, gx, nullptr, parallel);
    if (gx && is_wide(s)) {
        const Transformed shape = transformed(back, s.n, s.o, most);
        wide_correlate(back, tiled(backward_source(s), back), shape, backward_weights(s, w), s.n, g, s.ho, s.wo, s.c, gx,
                       scratch_shared(shape.floats()), parallel);
    }
}

static void grad_direct(const Conv& s, const float* g, const float* x, const float* w, float* gx, float* gw,
                        const Parallel& parallel) {
    const int tasks = tasks_of(s.n);
    if (gw) {
        const Padded p = forward_source(s);
        const bool copies = s.ph || s.pw;
        Taps taps;
        taps_of(s, p, &taps);
        const size_t source_size = copies ? rounded(s.n * p.floats()) : 0;
        float* source = scratch_shared(source_size + direct_weight_floats(s, taps));
        if (copies) {
            std::memset(source, 0, source_size * sizeof(float));
            parallel(tasks, [&](size_t task) {
                each_group(task, tasks, s.n, 1, [&](int i, int) {
                    place(p, x + i * s.image_in(), s.h, s.w, source + i * p.floats(), Plain());
                });
            });
        }
        direct_weight(s, p, taps, copies ? source : x, g, gw, source + source_size, parallel);
    }
    if (gx) {
        const Padded q = backward_source(s);
        float* packed = scratch_shared(backward_packed_floats(s));
        pack_backward(s, w, packed);
        const bool copies = q.height != s.ho || q.width != s.wo;
        parallel(tasks, [&](size_t task) {
            float* gradient = copies ? scratch(q.floats()) : nullptr;
            if (copies) std::memset(gradient, 0, q.floats() * sizeof(float));
            each_group(task, tasks, s.n, 1, [&](int i, int) {
                if (copies) place(q, g + i * s.image_out(), s.ho, s.wo, gradient, Plain());
                backward_image(s, q, copies ? gradient : g + i * s.image_out(), packed, gx + i * s.image_in());
            });
        });
    }
}

static void conv_grad(const Conv& s, const float* g, const float* x, const float* w, float* gx, float* gw,
                      const Parallel& parallel) {
    const Way way = way_of(s);
    if (way == Way::kDirect) grad_direct(s, g, x, w, gx, gw, parallel);
    else if (way == Way::kWide || (gw && has_wide_sums(s))) grad_wide(s, g, x, w, gx, gw, parallel);
    else grad_samples(way, s, g, x, w, gx, gw, parallel);
}

static void max_pool(const Conv& s, const float* x, float* y, const Parallel& parallel) {
    parallel(tasks_of(s.n), [&](size_t task) {
        each_group(task, tasks_of(s.n), s.n, 1, [&](int i, int) { max_pool_image(s, x + i * s.image_in(), y + i * s.image_out()); });
    });
}

static void max_pool_grad(const Conv& s, const float* g, const float* x, float* gx, const Parallel& parallel) {
    parallel(tasks_of(s.n), [&](size_t task) {
        each_group(task, tasks_of(s.n), s.n, 1, [&](int i, int) {
            max_pool_grad_image(s, g + i * s.image_out(), x + i * s.image_in(), gx + i * s.image_in());
        });
    });
}

static void image(int n, int channels, int positions, const float* x, const float* mean, const float* std, float* y,
                  const Parallel& parallel) {
    const size_t size = size_t(channels) * positions;
    parallel(tasks_of(n), [&](size_t task) {
        each_group(task, tasks_of(n), n, 1, [&](int i, int) {
            for (int c = 0; c < channels; ++c) {
                const float* from = x + i * size + size_t(c) * positions;
                float* to = y + i * size + c;
                for (int p = 0; p < positions; ++p) to[size_t(p) * channels] = (from[p] - mean[c]) / std[c];
            }
        });
    });
}

static void stats(int n, int positions, int channels, const float* x, float* mean, float* var,
                  const Parallel& parallel) {
    float* parts = scratch_shared(size_t(n) * 3 * channels);
    const int tasks = tasks_of(n);
    parallel(tasks, [&](size_t task) {
        for (int i = first_of(task, tasks, n); i < first_of(task + 1, tasks, n); ++i)
            moments_piece(x + size_t(i) * positions * channels, positions, channels, true, parts + size_t(i) * 3 * channels);
    });
    moments(parts, n, positions, channels, mean, var);
}

// scale and shift, [channels] each, of a norm.
static void affine(int channels, const float* invstd, const float* weight, const float* bias, float* scale, float* shift) {
    for (int c = 0; c < channels; ++c) {
        scale[c] = (weight ? weight[c] : 1.0f) * invstd[c];
        shift[c] = bias ? bias[c] : 0.0f;
    }
}

static void norm(const Norm& s, const Parallel& parallel) {
    float* scale = scratch_shared(2 * size_t(s.channels));
    float* shift = scale + s.channels;
    affine(s.channels, s.invstd, s.weight, s.bias, scale, shift);
    const Affine f{s.mean, scale, shift, s.low, s.high};
    const bool clamps = std::isfinite(s.low) || std::isfinite(s.high);
    const auto run = s.residual ? (clamps ? normalise<true, true> : normalise<true, false>)
                                : (clamps ? normalise<false, true> : normalise<false, false>);
    const int tasks = tasks_of(s.n);
    parallel(tasks, [&](size_t task) {
        const int first = first_of(task, tasks, s.n), end = first_of(task + 1, tasks, s.n);
        const size_t at = size_t(first) * s.positions * s.channels;
        run(f, s.x + at, s.residual ? s.residual + at : nullptr, (end - first) * s.positions, s.channels, s.y + at);
    });
}

template <bool kMore, Mask kMask>
static void norm_grad_as(const NormGrad& s, const Parallel& parallel) {
    const int tasks = tasks_of(s.n), c = s.channels;
    const size_t image = size_t(s.positions) * c;
    float* parts = scratch_shared((2 * size_t(s.n) + 5) * c);
    float *abe = parts + 2 * size_t(s.n) * c, *scale = abe + 3 * c, *shift = scale + c;
    affine(c, s.invstd, s.weight, s.bias, scale, shift);
    const Affine f{s.mean, scale, shift, s.low, s.high};
    const auto masked = [&](size_t at) {
        return Masked{s.g + at, kMore ? s.more + at : nullptr, kMask == Mask::kOut ? s.out + at : nullptr};
    };
    parallel(tasks, [&](size_t task) {
        for (int i = first_of(task, tasks, s.n); i < first_of(task + 1, tasks, s.n); ++i) {
            const size_t at = i * image;
            float* part = parts + size_t(i) * 2 * c;
            if (s.kept) norm_sums<kMore, kMask, true>(f, masked(at), s.x + at, s.positions, c, s.kept + at, part);
            else norm_sums<kMore, kMask, false>(f, masked(at), s.x + at, s.positions, c, nullptr, part);
        }
    });
    const double count = double(s.n) * s.positions;
    for (int k = 0; k < c; ++k) {
        double sum = 0, product = 0;
        for (int i = 0; i < s.n; ++i) sum += parts[size_t(i) * 2 * c + k], product += parts[size_t(i) * 2 * c + c + k];
        const double inverse = s.invstd[k], a = (s.weight ? s.weight[k] : 1.0) * inverse;
        const double along = s.train ? product * inverse * inverse / count : 0, level = s.train ? sum / count : 0;
        s.gw[k] = float(product * inverse);
        s.gb[k] = float(sum);
        abe[k] = float(a);
        abe[c + k] = float(-a * along);
        abe[2 * c + k] = float(-a * level);
    }
    if (!s.gx) return;
    parallel(tasks, [&](size_t task) {
        const int first = first_of(task, tasks, s.n), positions = (first_of(task + 1, tasks, s.n) - first) * s.positions;
        const size_t at = first * image;
        if (s.kept) norm_apply<false, Mask::kNone>(f, {s.kept + at, nullptr, nullptr}, s.x + at, abe, positions, c, s.gx + at);
        else norm_apply<kMore, kMask>(f, masked(at), s.x + at, abe, positions, c, s.gx + at);
    });
}

template <bool kMore>
static void norm_grad_masked(const NormGrad& s, const Parallel& parallel) {
    switch (s.mask) {
        case Mask::kNone: return norm_grad_as<kMore, Mask::kNone>(s, parallel);
        case Mask::kOut: return norm_grad_as<kMore, Mask::kOut>(s, parallel);
        case Mask::kOwn: return norm_grad_as<kMore, Mask::kOwn>(s, parallel);
    }
}

static void norm_grad(const NormGrad& s, const Parallel& parallel) {
    (s.more ? norm_grad_masked<true> : norm_grad_masked<false>)(s, parallel);
}

// values [channels], or all `other` where there are none.
static void filled(const float* values, float other, int channels, float* to) {
    for (int c = 0; c < channels; ++c) to[c] = values ? values[c] : other;
}

static void layer_norm(const LayerNorm& s, const Parallel& parallel) {
    const int tasks = tasks_of(s.rows), c = s.channels;
    float *weight = scratch_shared(2 * size_t(c)), *bias = weight + c;
    filled(s.weight, 1, c, weight), filled(s.bias, 0, c, bias);
    parallel(tasks, [&](size_t task) {
        const int first = first_of(task, tasks, s.rows), rows = first_of(task + 1, tasks, s.rows) - first;
        const size_t at = size_t(first) * c;
        layer_norm_rows(s.x + at, weight, bias, s.epsilon, rows, c, s.y + at, s.mean ? s.mean + first : nullptr,
                        s.invstd ? s.invstd + first : nullptr);
    });
}

static void layer_norm_grad(const LayerNormGrad& s, const Parallel& parallel) {
    const int tasks = tasks_of(s.rows), c = s.channels;
    float *weight = scratch_shared((1 + 2 * size_t(tasks)) * c), *sums = weight + c;
    filled(s.weight, 1, c, weight);
    parallel(tasks, [&](size_t task) {
        const int first = first_of(task, tasks, s.rows), rows = first_of(task + 1, tasks, s.rows) - first;
        const size_t at = size_t(first) * c;
        float* own = sums + task * 2 * c;
        std::memset(own, 0, 2 * size_t(c) * sizeof(float));
        layer_norm_grad_rows(s.g + at, s.x + at, s.mean + first, s.invstd + first, weight, rows, c, s.gx + at, own, own + c);
    });
    for (int k = 0; k < c; ++k) {
        s.gw[k] = s.gb[k] = 0;
        for (int task = 0; task < tasks; ++task) s.gw[k] += sums[task * 2 * c + k], s.gb[k] += sums[task * 2 * c + c + k];
    }
}

static void gelu(size_t count, const float* x, float* y, const Parallel& parallel) {
    parallel(kMostTasks, [&](size_t task) {
        const size_t first = count * task / kMostTasks, end = count * (task + 1) / kMostTasks;
        gelu_some(x + first, end - first, y + first);
    });
}

static void gelu_grad(size_t count, const float* g, const float* x, float* gx, const Parallel& parallel) {
    parallel(kMostTasks, [&](size_t task) {
        const size_t first = count * task / kMostTasks, end = count * (task + 1) / kMostTasks;
        gelu_grad_some(g + first, x + first, end - first, gx + first);
    });
}

static void sgd(const Sgd& s, const Parallel& parallel) {
    parallel(kMostTasks, [&](size_t task) {
        sgd_some(s, s.count * task / kMostTasks, s.count * (task + 1) / kMostTasks);
    });
}

}  // namespace HWY_NAMESPACE

const Kernels* CLUE_TARGET() {
    using namespace HWY_NAMESPACE;
    static const Kernels table{HWY_STR(HWY_NAMESPACE), conv, conv_grad, max_pool, max_pool_grad, image, stats, norm, norm_grad,
                               layer_norm, layer_norm_grad, gelu, gelu_grad, sgd};
    return &table;
}

}  // namespace clue
