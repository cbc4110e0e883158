// Direct against Winograd, one thread, milliseconds of CPU time (the best of 12), as GFLOP/s of the direct form's count:
//   g++ -std=c++17 -O3 -march=x86-64-v3 -maes -mpclmul -Isrc bench/conv_bench.cc -o conv_bench && ./conv_bench
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <type_traits>
#include <vector>

#include "../src/winograd.h"

using namespace clue;
using namespace clue::HWY_NAMESPACE;

static double seconds() {
    timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
}

static std::vector<float> random_floats(size_t n) {
    std::vector<float> values(n + 64);  // kernels may read a vector beyond the end
    for (float& v : values) v = float(rand()) / float(RAND_MAX) - 0.5f;
    return values;
}

template <class Fn>
static double best(Fn&& fn) {
    double least = 1e9;
    for (int i = 0; i < 12; ++i) {
        const double start = seconds();
        fn();
        const double took = seconds() - start;
        if (took < least) least = took;
    }
    return least;
}

static void measure(int n, int channels, int size) {
    const Conv s{n, size, size, channels, channels, size, size, 3, 3, 1, 1, 1, 1, 1, 1, 1};
    const Tiles tiles = tiles_of(size, size, s.c, s.o);
    const Padded p = forward_source(s), q = tiled(p, tiles);
    const int most = tiles.images() < n ? tiles.images() : n;
    const auto x = random_floats(n * s.image_in()), w = random_floats(size_t(s.o) * s.c * 9), g = random_floats(n * s.image_out());
    std::vector<float> y(n * s.image_out() + 64), source(most * q.floats() + 64), gw(w.size());
    std::vector<float> packed(kParts * packed_floats(1, s.c, s.o)), sums(kParts * size_t(s.c) * padded(s.o));
    std::vector<float> work(winograd_floats(tiles, s.c, s.o));
    ptrdiff_t offset[9];
    forward_offsets(s, p, offset);
    const auto image = [&](int i) { return x.data() + i * s.image_in(); };
    const double direct = best([&] {
        pack_forward(s, w.data(), packed.data());
        for (int i = 0; i < n; ++i) {
            place(p, image(i), s.h, s.w, source.data(), Plain());
            forward_image(s, p, offset, source.data(), packed.data(), y.data() + i * s.image_out());
        }
    });
    const double direct_weight = best([&] {
        for (int i = 0; i < n; ++i) {
            place(p, image(i), s.h, s.w, source.data(), Plain());
            weight_image(s, p, source.data(), g.data() + i * s.image_out(), ptrdiff_t(s.wo) * s.o, sums.data());
        }
        unpack_weight(s, sums.data(), 1, 0, gw.data());
    });
    const auto strip = [&](int i) {
        for (int k = 0; k < most; ++k) place(q, image(i + k), s.h, s.w, source.data() + k * q.floats(), Plain());
    };
    const double winograd = best([&] {
        pack_winograd(s.c, s.o, packed.data(), [&](int i, int j, int t) { return w[(size_t(j) * s.c + i) * 9 + t]; });
        for (int i = 0; i + most <= n; i += most) {
            strip(i);
            winograd_images(tiles, q, source.data(), most, packed.data(), s.o, y.data() + i * s.image_out(), work.data());
        }
    });
    const double winograd_sums = best([&] {
        for (int i = 0; i + most <= n; i += most) {
            strip(i);
            winograd_weight(tiles, q, source.data(), most, g.data() + i * s.image_out(), ptrdiff_t(s.wo) * s.o,
                            s.image_out(), s.o, sums.data(), work.data());
        }
        unpack_winograd(s.c, s.o, sums.data(), 1, 0, gw.data());
    });
    const double flops = 2e-9 * n * size * size * 9.0 * s.c * s.o;
    std::printf("%3d channels %2dx%-2d  forward: direct %.2f ms (%.0f), winograd %.2f (%.0f)   weights: %.2f (%.0f), %.2f (%.0f)\n",
                channels, size, size, 1e3 * direct, flops / direct, 1e3 * winograd, flops / winograd, 1e3 * direct_weight,
                flops / direct_weight, 1e3 * winograd_sums, flops / winograd_sums);
}

int main() {
    measure(32, 16, 32);
    measure(32, 32, 16);
    measure(32, 64, 8);
    measure(4, 64, 56);
    measure(4, 128, 28);
    measure(4, 256, 14);
    measure(4, 512, 7);
}
