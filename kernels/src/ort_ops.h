// The operators of the domain "clue": what each takes, and how it calls the kernels. Activations are NHWC.
#pragma once

#include <cmath>
#include <cstring>

#include "ort_kernel.h"

namespace clue::ort {

inline int count_of(const Shape& shape) {
    int64_t count = 1;
    for (const int64_t size : shape) count *= size;
    return int(count);
}

// What an operator is unless it says otherwise.
struct Operator {
    static constexpr bool kVariadic = false;  // the last input stands for any number of them
    static constexpr bool kInPlace = false;   // the first output may be in the memory of the first input
};

// What windows over images share. geometry: kernel height, width, strides, padding, dilation, groups, input height, width.
class Window : public Operator {
   public:
    explicit Window(const Attributes& attributes) {
        const auto g = attributes.integers("geometry", 11);
        for (int i = 0; i < 11; ++i) require(g[i] >= (i == 4 || i == 5 ? 0 : 1) && g[i] < 1 << 20, "geometry: out of range");
        shape_.kh = int(g[0]), shape_.kw = int(g[1]), shape_.sh = int(g[2]), shape_.sw = int(g[3]);
        shape_.ph = int(g[4]), shape_.pw = int(g[5]), shape_.dh = int(g[6]), shape_.dw = int(g[7]);
        shape_.groups = int(g[8]), shape_.h = int(g[9]), shape_.w = int(g[10]);
        require(shape_.kh <= 64 && shape_.kw <= 64 && shape_.taps() <= 1024, "geometry: the kernel is too large");
        shape_.ho = (shape_.h + 2 * shape_.ph - shape_.dh * (shape_.kh - 1) - 1) / shape_.sh + 1;
        shape_.wo = (shape_.w + 2 * shape_.pw - shape_.dw * (shape_.kw - 1) - 1) / shape_.sw + 1;
        require(shape_.ho > 0 && shape_.wo > 0, "geometry: the kernel is larger than the image");
    }

   protected:
    static Shape image_in(const Conv& s) { return {s.n, s.h, s.w, s.c}; }
    static Shape image_out(const Conv& s) { return {s.n, s.ho, s.wo, s.o}; }

    Conv shape_{};
};

// What the convolutions share.
class ConvBase : public Window {
   public:
    using Window::Window;

   protected:
    // x [n][h][w][c], g [n][ho][wo][o], w [o][c / groups][kh][kw]: those that are there must agree.
    Conv shape(const Tensor& x, const Tensor& g, const Tensor& w) const {
        Conv s = shape_;
        s.n = int((x ? x : g).shape.at(0));
        s.o = int(w ? w.shape.at(0) : g.shape.at(3));
        s.c = int(x ? x.shape.at(3) : w.shape.at(1) * s.groups);
        require(s.c % s.groups == 0 && s.o % s.groups == 0, "channels are no multiple of the groups");
        require(!x || x.shape == Shape{s.n, s.h, s.w, s.c}, "x does not have the shape of the geometry");
        require(!g || g.shape == Shape{s.n, s.ho, s.wo, s.o}, "the gradient does not have the shape of the geometry");
        require(!w || w.shape == Shape{s.o, s.ci(), s.kh, s.kw}, "the weights do not have the shape of the geometry");
        return s;
    }
};

// What those share that read weights. weights: where they begin in the vector that stands for them, and their first two sizes; or
// -1 and two zeros where they are a tensor of their own.
class WeightsBase : public ConvBase {
   public:
    explicit WeightsBase(const Attributes& attributes) : ConvBase(attributes), weights_(attributes.integers("weights", 3)) {
        require(weights_[0] == -1 || (weights_[0] >= 0 && weights_[1] > 0 && weights_[2] > 0), "weights: out of range");
    }

   protected:
    // The weights among a run's inputs.
    Tensor weights_at(const Run& run, size_t index) const {
        Tensor w = run.input(index);
        if (weights_[0] < 0) return w;
        const Shape own{weights_[1], weights_[2], shape_.kh, shape_.kw};
        require(w.shape.size() == 1 && weights_[0] + count_of(own) <= w.shape[0], "the weights lie outside their vector");
        return {w.data + weights_[0], own};
    }

   private:
    std::vector<int64_t> weights_;
};

// y = Conv(x, w, [bias]); mean and variance of y's channels too, where something reads them.
struct ConvOp : WeightsBase {
    static constexpr const char* kName = "Conv";
    static constexpr size_t kInputs = 3, kLeastInputs = 2, kOutputs = 3, kLeastOutputs = 1;
    using WeightsBase::WeightsBase;

    void operator()(const Kernels& kernels, const Run& run) const {
        const Tensor x = run.input(0), w = weights_at(run, 1), bias = run.input(2);
        const Conv s = shape(x, Tensor(), w);
        require(!bias || bias.shape == Shape{s.o}, "the bias does not have one value for each channel");
        float* y = run.output(0, image_out(s));
        float *mean = run.output(1, {s.o}), *var = run.output(2, {s.o});
        require((mean == nullptr) == (var == nullptr), "mean and variance come together");
        kernels.conv(s, x.data, w.data, bias.data, y, mean, var, run.parallel());
    }
};

// gx, gw = ConvGrad(g, x, w).
struct ConvGradOp : WeightsBase {
    static constexpr const char* kName = "ConvGrad";
    static constexpr size_t kInputs = 3, kLeastInputs = 3, kOutputs = 2, kLeastOutputs = 2;
    using WeightsBase::WeightsBase;

    void operator()(const Kernels& kernels, const Run& run) const {
        const Tensor g = run.input(0), x = run.input(1), w = weights_at(run, 2);
        const Conv s = shape(x, g, w);
        float *gx = run.output(0, image_in(s)), *gw = run.output(1, {s.o, s.ci(), s.kh, s.kw});
        kernels.conv_grad(s, g.data, x.data, w.data, gx, gw, run.parallel());
    }
};

// gx = ConvInputGrad(g, w).
struct ConvInputGradOp : WeightsBase {
    static constexpr const char* kName = "ConvInputGrad";
    static constexpr size_t kInputs = 2, kLeastInputs = 2, kOutputs = 1, kLeastOutputs = 1;
    using WeightsBase::WeightsBase;

    void operator()(const Kernels& kernels, const Run& run) const {
        const Tensor g = run.input(0), w = weights_at(run, 1);
        const Conv s = shape(Tensor(), g, w);
        kernels.conv_grad(s, g.data, nullptr, w.data, run.output(0, image_in(s)), nullptr, run.parallel());
    }
};

// gw = ConvWeightGrad(g, x).
struct ConvWeightGradOp : ConvBase {
    static constexpr const char* kName = "ConvWeightGrad";
    static constexpr size_t kInputs = 2, kLeastInputs = 2, kOutputs = 1, kLeastOutputs = 1;
    using ConvBase::ConvBase;

    void operator()(const Kernels& kernels, const Run& run) const {
        const Tensor g = run.input(0), x = run.input(1);
        const Conv s = shape(x, g, Tensor());
        float* gw = run.output(0, {s.o, s.ci(), s.kh, s.kw});
        kernels.conv_grad(s, g.data, x.data, nullptr, nullptr, gw, run.parallel());
    }
};

// y = MaxPool(x).
struct MaxPoolOp : Window {
    static constexpr const char* kName = "MaxPool";
    static constexpr size_t kInputs = 1, kLeastInputs = 1, kOutputs = 1, kLeastOutputs = 1;
    using Window::Window;

    void operator()(const Kernels& kernels, const Run& run) const {
        const Tensor x = run.input(0);
        const Conv s = pooled(x);
        kernels.max_pool(s, x.data, run.output(0, image_out(s)), run.parallel());
    }

   protected:
    Conv pooled(const Tensor& x) const {
        Conv s = shape_;
        s.n = int(x.shape.at(0)), s.c = s.o = int(x.shape.at(3));
        require(x.shape == image_in(s), "x does not have the shape of the geometry");
        return s;
    }
};

// gx = MaxPoolGrad(g, x): each gradient goes to the first of its window's largest values.
struct MaxPoolGradOp : MaxPoolOp {
    static constexpr const char* kName = "MaxPoolGrad";
    static constexpr size_t kInputs = 2, kLeastInputs = 2;
    using MaxPoolOp::MaxPoolOp;

    void operator()(const Kernels& kernels, const Run& run) const {
        const Tensor g = run.input(0), x = run.input(1);
        const Conv s = pooled(x);
        require(g.shape == image_out(s), "the gradient does not have the shape of the geometry");
        kernels.max_pool_grad(s, g.data, x.data, run.output(0, image_in(s)), run.parallel());
    }
};

// What lies between the batch and the channels counts as positions.
inline int positions_of(const Tensor& x) {
    require(x.shape.size() >= 2, "an activation has a batch and channels at least");
    int64_t count = 1;
    for (size_t i = 1; i + 1 < x.shape.size(); ++i) count *= x.shape[i];
    return int(count);
}

inline void per_channel(const Tensor& value, int channels, const char* what) {
    require(!value || value.shape == Shape{channels}, what);
}

// mean, var = Stats(x): of each channel, the population's variance.
struct StatsOp : Operator {
    static constexpr const char* kName = "Stats";
    static constexpr size_t kInputs = 1, kLeastInputs = 1, kOutputs = 2, kLeastOutputs = 2;
    explicit StatsOp(const Attributes&) {}

    void operator()(const Kernels& kernels, const Run& run) const {
        const Tensor x = run.input(0);
        const int n = int(x.shape.at(0)), positions = positions_of(x), c = int(x.shape.back());
        float *mean = run.output(0, {c}), *var = run.output(1, {c});
        kernels.stats(n, positions, c, x.data, mean, var, run.parallel());
    }
};

// y = clamp((x - mean) * invstd * weight + bias + residual, low, high); weight, bias, residual may be left out. What is named last,
// `after`, is not read: the runtime only waits for it, so that what is made a second time is not made too early. Others have it too.
struct NormOp : Operator {
    static constexpr const char* kName = "Norm";
    static constexpr size_t kInputs = 7, kLeastInputs = 3, kOutputs = 1, kLeastOutputs = 1;
    explicit NormOp(const Attributes& a) : low_(a.number("low")), high_(a.number("high")) {}

    void operator()(const Kernels& kernels, const Run& run) const {
        const Tensor x = run.input(0), mean = run.input(1), invstd = run.input(2), weight = run.input(3),
                     bias = run.input(4), residual = run.input(5);
        const int c = int(x.shape.back());
        for (const Tensor* each : {&mean, &invstd, &weight, &bias}) per_channel(*each, c, "one value for each channel is due");
        require(!residual || residual.shape == x.shape, "the residual does not have the shape of x");
        kernels.norm({int(x.shape[0]), positions_of(x), c, low_, high_, x.data, mean.data, invstd.data, weight.data,
                      bias.data, residual.data, run.output(0, x.shape)},
                     run.parallel());
    }

   private:
    float low_, high_;
};

// gx, gweight, gbias, [masked] = NormGrad(g, x, mean, invstd, [weight], [bias], [out], [more]): the gradient is g + more, and zero
// where `out`, the norm's clamped result, is not strictly between low and high; without `out` the norm of x takes its place.
// masked is that gradient. train: the statistics are those of x itself.
struct NormGradOp : Operator {
    static constexpr const char* kName = "NormGrad";
    static constexpr size_t kInputs = 8, kLeastInputs = 4, kOutputs = 4, kLeastOutputs = 3;
    static constexpr bool kInPlace = true;  // gx over g
    explicit NormGradOp(const Attributes& a)
        : train_(a.integer("train") != 0), low_(a.number("low")), high_(a.number("high")) {}

    void operator()(const Kernels& kernels, const Run& run) const {
        const Tensor g = run.input(0), x = run.input(1), mean = run.input(2), invstd = run.input(3), weight = run.input(4),
                     bias = run.input(5), out = run.input(6), more = run.input(7);
        const int c = int(x.shape.back());
        for (const Tensor* each : {&mean, &invstd, &weight, &bias}) per_channel(*each, c, "one value for each channel is due");
        for (const Tensor* each : {&g, &out, &more})
            require(!*each || each->shape == x.shape, "g, out and more must have the shape of x");
        const bool clamps = std::isfinite(low_) || std::isfinite(high_);
        float *gx = run.output(0, x.shape), *gw = run.output(1, {c}), *gb = run.output(2, {c});
        float* kept = run.output(3, x.shape);
        kernels.norm_grad({int(x.shape[0]), positions_of(x), c, train_, clamps ? (out ? Mask::kOut : Mask::kOwn) : Mask::kNone,
                           low_, high_, g.data, more.data, out.data, x.data, mean.data, invstd.data, weight.data, bias.data, gx,
                           gw, gb, kept},
                          run.parallel());
    }

   private:
    bool train_;
    float low_, high_;
};

// y, [mean], [invstd] = LayerNorm(x, [weight], [bias], [after]) over the last axis; mean and invstd keep it with size 1.
struct LayerNormOp : Operator {
    static constexpr const char* kName = "LayerNorm";
    static constexpr size_t kInputs = 4, kLeastInputs = 1, kOutputs = 3, kLeastOutputs = 1;
    explicit LayerNormOp(const Attributes& a) : epsilon_(a.number("epsilon")) {}

    void operator()(const Kernels& kernels, const Run& run) const {
        const Tensor x = run.input(0), weight = run.input(1), bias = run.input(2);
        const int c = int(x.shape.back());
        for (const Tensor* each : {&weight, &bias}) per_channel(*each, c, "one value for each channel is due");
        Shape rows = x.shape;
        rows.back() = 1;
        float *y = run.output(0, x.shape), *mean = run.output(1, rows), *invstd = run.output(2, rows);
        kernels.layer_norm({count_of(rows), c, epsilon_, x.data, weight.data, bias.data, y, mean, invstd}, run.parallel());
    }

   private:
    float epsilon_;
};

// gx, gweight, gbias = LayerNormGrad(g, x, mean, invstd, [weight]).
struct LayerNormGradOp : Operator {
    static constexpr const char* kName = "LayerNormGrad";
    static constexpr size_t kInputs = 5, kLeastInputs = 4, kOutputs = 3, kLeastOutputs = 3;
    static constexpr bool kInPlace = true;  // gx over g
    explicit LayerNormGradOp(const Attributes&) {}

    void operator()(const Kernels& kernels, const Run& run) const {
        const Tensor g = run.input(0), x = run.input(1), mean = run.input(2), invstd = run.input(3), weight = run.input(4);
        const int c = int(x.shape.back());
        per_channel(weight, c, "one value for each channel is due");
        Shape rows = x.shape;
        rows.back() = 1;
        require(g.shape == x.shape && mean.shape == rows && invstd.shape == rows, "g, mean and invstd must fit x");
        float *gx = run.output(0, x.shape), *gw = run.output(1, {c}), *gb = run.output(2, {c});
        kernels.layer_norm_grad({count_of(rows), c, g.data, x.data, mean.data, invstd.data, weight.data, gx, gw, gb},
                                run.parallel());
    }
};

// y = Gelu(x, [after]), x times the normal distribution's function of x.
struct GeluOp : Operator {
    static constexpr const char* kName = "Gelu";
    static constexpr size_t kInputs = 2, kLeastInputs = 1, kOutputs = 1, kLeastOutputs = 1;
    explicit GeluOp(const Attributes&) {}

    void operator()(const Kernels& kernels, const Run& run) const {
        const Tensor x = run.input(0);
        kernels.gelu(size_t(count_of(x.shape)), x.data, run.output(0, x.shape), run.parallel());
    }
};

// gx = GeluGrad(g, x), of x times the normal distribution's function of x.
struct GeluGradOp : Operator {
    static constexpr const char* kName = "GeluGrad";
    static constexpr size_t kInputs = 2, kLeastInputs = 2, kOutputs = 1, kLeastOutputs = 1;
    static constexpr bool kInPlace = true;  // gx over g
    explicit GeluGradOp(const Attributes&) {}

    void operator()(const Kernels& kernels, const Run& run) const {
        const Tensor g = run.input(0), x = run.input(1);
        require(g.shape == x.shape, "g must have the shape of x");
        kernels.gelu_grad(size_t(count_of(x.shape)), g.data, x.data, run.output(0, x.shape), run.parallel());
    }
};

// y = Image(x, mean, std, [after]): (x - mean) / std of x [n][c][h][w], with the channels last.
struct ImageOp : Operator {
    static constexpr const char* kName = "Image";
    static constexpr size_t kInputs = 4, kLeastInputs = 3, kOutputs = 1, kLeastOutputs = 1;
    explicit ImageOp(const Attributes&) {}

    void operator()(const Kernels& kernels, const Run& run) const {
        const Tensor x = run.input(0), mean = run.input(1), std = run.input(2);
        require(x.shape.size() == 4, "x is no batch of images");
        const int n = int(x.shape[0]), c = int(x.shape[1]);
        const Shape each{1, c, 1, 1};
        require(mean.shape == each && std.shape == each, "mean and std must have one value for each channel");
        kernels.image(n, c, int(x.shape[2] * x.shape[3]), x.data, mean.data, std.data,
                      run.output(0, {n, x.shape[2], x.shape[3], c}), run.parallel());
    }
};

// y = Part(vector, [after]): its elements from start to stop.
struct PartOp : Operator {
    static constexpr const char* kName = "Part";
    static constexpr size_t kInputs = 2, kLeastInputs = 1, kOutputs = 1, kLeastOutputs = 1;
    explicit PartOp(const Attributes& a) : start_(a.integer("start")), stop_(a.integer("stop")) {
        require(0 <= start_ && start_ < stop_, "start and stop: out of range");
    }

    void operator()(const Kernels&, const Run& run) const {
        const Tensor vector = run.input(0);
        require(vector.shape.size() == 1 && stop_ <= vector.shape[0], "the part lies outside the vector");
        std::memcpy(run.output(0, {stop_ - start_}), vector.data + start_, size_t(stop_ - start_) * sizeof(float));
    }

   private:
    int64_t start_, stop_;
};

// w', v' = Sgd(w, v, lr, [mask], g...): v' = momentum v + g mask, w' = w - lr v'. The gradient comes in pieces, one behind the
// other. A result may be in the memory of its argument.
struct SgdOp : Operator {
    static constexpr const char* kName = "Sgd";
    static constexpr size_t kInputs = 5, kLeastInputs = 3, kOutputs = 2, kLeastOutputs = 2;
    static constexpr bool kVariadic = true;
    explicit SgdOp(const Attributes& a) : momentum_(a.number("momentum")) {}

    void operator()(const Kernels& kernels, const Run& run) const {
        const Tensor w = run.input(0), v = run.input(1), lr = run.input(2), mask = run.input(3);
        require(v.shape == w.shape && (!mask || mask.shape == w.shape), "momentum and mask must have the shape of w");
        require(count_of(lr.shape) == 1, "the learning rate is one number");
        std::vector<Piece> pieces;
        size_t count = 0;
        for (size_t i = 4; i < run.inputs(); ++i) {
            const Tensor g = run.input(i);
            pieces.push_back({g.data, count});
            count += size_t(count_of(g.shape));
        }
        require(count == size_t(count_of(w.shape)), "the gradient's pieces do not have the size of w");
        float *to = run.output(0, w.shape), *moved = run.output(1, w.shape);
        kernels.sgd({count, momentum_, *lr.data, w.data, v.data, mask.data, pieces.data(), int(pieces.size()), to, moved},
                    run.parallel());
    }

   private:
    float momentum_;
};

}  // namespace clue::ort
