// What the kernels are told about their arguments: shapes, layouts and the fork-join they run on.
#pragma once

#include <cstddef>

namespace clue {

// A two-dimensional convolution. Activations are [n][height][width][channel] ("NHWC"), weights as PyTorch has
// them, [out][in / groups][kernel height][kernel width].
struct Conv {
    int n, h, w, c;         // batch, and one input image
    int o, ho, wo;          // channels, height and width of an output image
    int kh, kw;             // kernel
    int sh, sw;             // stride
    int ph, pw;             // padding on both sides
    int dh, dw;             // dilation
    int groups;

    int ci() const { return c / groups; }
    int co() const { return o / groups; }
    int taps() const { return kh * kw; }
    size_t image_in() const { return size_t(h) * w * c; }
    size_t image_out() const { return size_t(ho) * wo * o; }
};

// Runs fn(argument, 0), ..., fn(argument, count - 1), some of them at the same time.
struct Parallel {
    void (*run)(void* self, size_t count, void (*fn)(void*, size_t), void* argument);
    void* self;

    template <class F>
    void operator()(size_t count, F&& f) const {
        run(self, count, [](void* g, size_t i) { (*static_cast<F*>(g))(i); }, &f);
    }
};

// Samples are dealt to at most this many tasks, whatever the number of threads, so that sums are taken in the
// same order and results do not depend on the threads.
constexpr int kMostTasks = 4;

inline int tasks_of(int n) { return n < kMostTasks ? n : kMostTasks; }
inline int first_of(int task, int tasks, int n) { return int(long(n) * task / tasks); }

}  // namespace clue
