// The convolutions of ResNet-18 and MobileNetV2 (224x224) and ResNet-20 (32x32), ViT-Ti's linear layers as 1x1, one thread: milliseconds of CPU time (the best
// of 7), and GFLOP/s of the direct form's count, of the forward pass, the input's gradient and the weights' gradient.
//   g++ -std=c++17 -O3 -march=x86-64-v3 -maes -mpclmul -DCLUE_TARGET=kernels_avx2 -Isrc bench/conv_bench.cc -o conv_bench
//   ./conv_bench [BATCH [PART OF A NAME]]
#include <cstdio>
#include <cstring>
#include <ctime>
#include <vector>

#include "../src/target.cc"

namespace clue {
float* scratch(size_t floats) {
    static std::vector<float> buffer;
    if (buffer.size() < floats + 16) buffer.resize(floats + 16);
    return buffer.data();
}
float* scratch_shared(size_t floats) {
    static std::vector<float> buffer;
    if (buffer.size() < floats + 16) buffer.resize(floats + 16);
    return buffer.data();
}
}  // namespace clue

using namespace clue;

static double seconds() {
    timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
}

static std::vector<float> random_floats(size_t n) {
    std::vector<float> values(n);
    for (float& v : values) v = float(rand()) / float(RAND_MAX) - 0.5f;
    return values;
}

template <class Fn>
static double best(Fn&& fn) {
    double least = 1e9;
    for (int i = 0; i < 7; ++i) {
        const double start = seconds();
        fn();
        const double took = seconds() - start;
        if (took < least) least = took;
    }
    return least;
}

struct Layer {
    const char* name;
    int size, in, out, kernel, stride, groups;
};

constexpr Layer kLayers[] = {
    {"resnet18 stem", 224, 3, 64, 7, 2, 1},        {"resnet18 64", 56, 64, 64, 3, 1, 1},
    {"resnet18 64-128", 56, 64, 128, 3, 2, 1},     {"resnet18 128", 28, 128, 128, 3, 1, 1},
    {"resnet18 128-256", 28, 128, 256, 3, 2, 1},   {"resnet18 256", 14, 256, 256, 3, 1, 1},
    {"resnet18 256-512", 14, 256, 512, 3, 2, 1},   {"resnet18 512", 7, 512, 512, 3, 1, 1},
    {"resnet18 1x1 256-512", 14, 256, 512, 1, 2, 1},
    {"vit 192-768", 14, 192, 768, 1, 1, 1},          {"vit 768-192", 14, 768, 192, 1, 1, 1},
    {"vit 192-576", 14, 192, 576, 1, 1, 1},          {"vit 192-192", 14, 192, 192, 1, 1, 1},
    {"mobile stem", 224, 3, 32, 3, 2, 1},          {"mobile 16-96", 112, 16, 96, 1, 1, 1},
    {"mobile 96 deep", 112, 96, 96, 3, 2, 96},     {"mobile 144-24", 56, 144, 24, 1, 1, 1},
    {"mobile 144 deep", 56, 144, 144, 3, 1, 144},  {"mobile 192-32", 28, 192, 32, 1, 1, 1},
    {"mobile 64-384", 14, 64, 384, 1, 1, 1},       {"mobile 384 deep", 14, 384, 384, 3, 1, 384},
    {"mobile 576-96", 14, 576, 96, 1, 1, 1},       {"mobile 160-960", 7, 160, 960, 1, 1, 1},
    {"mobile 320-1280", 7, 320, 1280, 1, 1, 1},    {"resnet20 16", 32, 16, 16, 3, 1, 1},
    {"resnet20 16-32", 32, 16, 32, 3, 2, 1},       {"resnet20 64", 8, 64, 64, 3, 1, 1},
};

static void measure(const Layer& l, int n) {
    const int pad = l.kernel / 2, out = (l.size + 2 * pad - l.kernel) / l.stride + 1;
    const Conv s{n, l.size, l.size, l.in, l.out, out, out, l.kernel, l.kernel, l.stride, l.stride, pad, pad, 1, 1, l.groups};
    const Kernels& k = *CLUE_TARGET();
    const Parallel serial{[](void*, size_t count, void (*fn)(void*, size_t), void* argument) {
                              for (size_t i = 0; i < count; ++i) fn(argument, i);
                          },
                          nullptr};
    const auto x = random_floats(n * s.image_in()), w = random_floats(size_t(s.o) * s.ci() * s.taps()), g = random_floats(n * s.image_out());
    std::vector<float> y(g.size()), gx(x.size()), gw(w.size()), mean(s.o), var(s.o);
    const double took[] = {
        best([&] { k.conv(s, x.data(), w.data(), nullptr, y.data(), mean.data(), var.data(), serial); }),
        best([&] { k.conv_grad(s, g.data(), nullptr, w.data(), gx.data(), nullptr, serial); }),
        best([&] { k.conv_grad(s, g.data(), x.data(), nullptr, nullptr, gw.data(), serial); }),
    };
    const double gflop = 2e-9 * double(g.size()) * s.ci() * s.taps();
    std::printf("%-22s", l.name);
    for (const double t : took) std::printf("  %7.2f (%5.1f)", 1e3 * t, gflop / t);
    std::printf("\n");
    std::fflush(stdout);
}

int main(int count, char** arguments) {
    const int n = count > 1 ? std::atoi(arguments[1]) : 8;
    for (const Layer& l : kLayers)
        if (count < 3 || std::strstr(l.name, arguments[2])) measure(l, n);
}
