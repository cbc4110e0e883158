// The weights' gradient of the direct form, dealt in one of two ways. Few weights: by samples, each task with sums of its own, so that
// x and g are read once. Many: by blocks of weights, whose sums stay in a cache over the whole batch and are written once.
#pragma once

#include "conv.h"

namespace clue {
namespace HWY_NAMESPACE {

// A block of weights: output channels [begin, begin + channels) and, of each tap's channels k, [from, from + k).
struct WeightBlock {
    int group, begin, channels, from, k;
    int wide() const { return padded(channels); }
};

// How the blocks are cut: ranges of output channels times pieces of k, of each group.
struct WeightUnits {
    bool samples;  // each task has all blocks of some samples
    int wide;      // output channels of a range
    int ranges, pieces;
    int count(const Conv& s) const { return s.groups * ranges * pieces; }
};

// Of blocks that are dealt out, each range reads x again and each piece g: so what is larger is split less.
inline WeightUnits weight_units(const Conv& s, const Taps& taps) {
    constexpr size_t kSums = 48 << 10;  // floats of sums that stay in the second cache
    const size_t rows = size_t(taps.count) * taps.k;
    if (rows * padded(s.co()) * s.groups <= 2 * kSums) return {true, s.co(), 1, 1};
    const int blocks = (s.co() + kBlock - 1) / kBlock, across = blocks < 4 ? blocks : 4;
    const int ranges = (blocks + across - 1) / across, most = (taps.k + 5) / 6;
    const int pieces = int((rows * across * kBlock + kSums - 1) / kSums);
    return {false, across * kBlock, ranges, pieces < most ? pieces : most};
}

inline WeightBlock weight_block(const Conv& s, const Taps& taps, const WeightUnits& units, int unit) {
    const int piece = unit % units.pieces, begin = unit / units.pieces % units.ranges * units.wide;
    const int from = taps.k * piece / units.pieces, left = s.co() - begin;
    return {unit / units.pieces / units.ranges, begin, left < units.wide ? left : units.wide, from,
            taps.k * (piece + 1) / units.pieces - from};
}

// Floats of a block's sums, [tap][k][wide], and of the working memory besides.
inline size_t block_floats(const Taps& taps, const WeightBlock& block) { return size_t(taps.count) * block.k * block.wide(); }

// How many positions at a time: their g and a few channels of their x should stay in the first cache.
inline int positions_at_once(const WeightUnits& units) {
    const int most = 4096 / units.wide;
    return most < 64 ? 64 : (most > 128 ? 128 : most);
}

// Rows of the result, or whole images where several are few enough, that are summed at a time.
inline Walk chunk_of(const Conv& s, const Padded& p, int positions) {
    Walk walk{1, positions / s.wo, s.wo, ptrdiff_t(p.floats()), s.sh * p.row(), ptrdiff_t(s.sw) * s.c};
    if (walk.height < 1) walk.height = 1;
    if (walk.height >= s.ho) walk.height = s.ho, walk.images = positions / (s.ho * s.wo);
    if (walk.images < 1) walk.images = 1;
    return walk;
}

inline size_t panel_floats(const Conv& s, const Padded& p, const WeightUnits& units) {
    const Walk chunk = chunk_of(s, p, positions_at_once(units));
    return size_t(chunk.images) * chunk.height * chunk.width * padded(units.wide);
}

// The sums of a block as its part of the gradient [o][ci][kh][kw].
inline void unpack_weight(const Conv& s, const Taps& taps, const WeightBlock& block, const float* sums, float* gw) {
    const int ci = s.ci(), kernel = s.taps();
    const bool rows = taps.count != kernel;  // k runs over a row of the kernel, then over channels
    gw += size_t(block.group * s.co() + block.begin) * ci * kernel;
    for (int a = 0; a < taps.count; ++a)
        for (int i = block.from; i < block.from + block.k; ++i, sums += block.wide()) {
            const int tap = rows ? a * s.kw + i / ci : a, channel = rows ? i % ci : i;
            float* to = gw + size_t(channel) * kernel + tap;
            for (int j = 0; j < block.channels; ++j) to[size_t(j) * ci * kernel] = sums[j];
        }
}

// to[position][wide] = from[position][0:channels], positions `step` floats apart; the rest of `wide` stays as it is.
inline void copy_panel(const float* from, ptrdiff_t step, int positions, int channels, int wide, float* to) {
    const Floats d;
    if (channels == wide) {
        for (int i = 0; i < positions; ++i, from += step)
            for (int c = 0; c < wide; c += kLanes, to += kLanes) hn::StoreU(hn::LoadU(d, from + c), d, to);
    } else {
        for (int i = 0; i < positions; ++i, from += step, to += wide) std::memcpy(to, from, channels * sizeof(float));
    }
}

// Adds images [first, end) to a block's sums; `source` is padded as forward_source says; panel: zeros, panel_floats.
inline void weight_sums(const Conv& s, const Padded& p, const Taps& taps, const WeightUnits& units, const WeightBlock& block,
                        int first, int end, const float* source, const float* g, float* sums, float* panel) {
    const Walk most = chunk_of(s, p, positions_at_once(units));
    const int wide = block.wide();
    const float* x = source + block.group * s.ci() + block.from;
    g += block.group * s.co() + block.begin;
    for (int n = first; n < end; n += most.images)
        for (int row = 0; row < s.ho; row += most.height) {
            Walk walk = most;
            if (end - n < walk.images) walk.images = end - n;
            if (s.ho - row < walk.height) walk.height = s.ho - row;
            const float* at = g + (size_t(n) * s.ho + row) * s.wo * s.o;
            if (wide != s.o) {
                copy_panel(at, s.o, walk.images * walk.height * s.wo, block.channels, wide, panel);
                at = panel;
            }
            for (int a = 0; a < taps.count; ++a)
                outer_all(x + n * walk.image + row * walk.row + taps.offset[a], walk, block.k, at, wide, wide,
                          sums + size_t(a) * block.k * wide, wide);
        }
}

// gw from n images; `source` is padded as forward_source says.
inline void direct_weight(const Conv& s, const Padded& p, const Taps& taps, const float* source, const float* g, float* gw,
                          float* shared, const Parallel& parallel) {
    const WeightUnits units = weight_units(s, taps);
    const size_t panel = panel_floats(s, p, units);
    const int count = units.count(s), tasks = tasks_of(s.n);
    if (!units.samples) {
        parallel(count, [&](size_t unit) {
            const WeightBlock block = weight_block(s, taps, units, int(unit));
            const size_t floats = block_floats(taps, block);
            float* sums = scratch(floats + panel);
            std::memset(sums, 0, (floats + panel) * sizeof(float));
            weight_sums(s, p, taps, units, block, 0, s.n, source, g, sums, sums + floats);
            unpack_weight(s, taps, block, sums, gw);
        });
        return;
    }
    const size_t each = block_floats(taps, weight_block(s, taps, units, 0)), all = each * count;
    std::memset(shared, 0, all * tasks * sizeof(float));
    parallel(tasks, [&](size_t task) {
        float* work = scratch(panel);
        std::memset(work, 0, panel * sizeof(float));
        for (int unit = 0; unit < count; ++unit)
            weight_sums(s, p, taps, units, weight_block(s, taps, units, unit), first_of(task, tasks, s.n),
                        first_of(task + 1, tasks, s.n), source, g, shared + task * all + unit * each, work);
    });
    for (int task = 1; task < tasks; ++task)
        for (size_t i = 0; i < all; ++i) shared[i] += shared[task * all + i];
    for (int unit = 0; unit < count; ++unit)
        unpack_weight(s, taps, weight_block(s, taps, units, unit), shared + unit * each, gw);
}

// Floats that `direct_weight` takes as `shared`.
inline size_t direct_weight_floats(const Conv& s, const Taps& taps) {
    const WeightUnits units = weight_units(s, taps);
    return units.samples ? block_floats(taps, weight_block(s, taps, units, 0)) * units.count(s) * tasks_of(s.n) : 0;
}

}  // namespace HWY_NAMESPACE
}  // namespace clue
