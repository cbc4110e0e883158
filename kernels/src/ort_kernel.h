// One run of an operator: its tensors, attributes and threads, with errors as exceptions.
#pragma once

#include <stdexcept>
#include <string>
#include <vector>

#include "kernels.h"
#include "ort_abi.h"

namespace clue::ort {

struct Failure : std::runtime_error {
    using std::runtime_error::runtime_error;
};

inline void check(const Api& api, Status* status, const char* what) {
    if (status == nullptr) return;
    api.release(status);
    throw Failure(what);
}

using Shape = std::vector<int64_t>;

struct Tensor {
    const float* data = nullptr;  // null: an optional one that was left out
    Shape shape;
    explicit operator bool() const { return data != nullptr; }
};

class Run {
   public:
    Run(const Api& api, KernelContext* context) : api_(api), context_(context) {
        check(api_, api_.input_count(context, &inputs_), "inputs cannot be counted");
        check(api_, api_.output_count(context, &outputs_), "outputs cannot be counted");
    }

    size_t inputs() const { return inputs_; }

    Tensor input(size_t index) const {
        Tensor tensor;
        const Value* value = nullptr;
        if (index >= inputs_) return tensor;
        check(api_, api_.input(context_, index, &value), "an input cannot be read");
        if (value == nullptr) return tensor;
        ShapeInfo* info = nullptr;
        check(api_, api_.shape(value, &info), "an input has no shape");
        size_t rank = 0;
        Status* status = api_.rank(info, &rank);
        if (status == nullptr) {
            tensor.shape.resize(rank);
            status = api_.dimensions(info, tensor.shape.data(), rank);
        }
        api_.release(info);
        check(api_, status, "an input's shape cannot be read");
        void* data = nullptr;
        check(api_, api_.data(const_cast<Value*>(value), &data), "an input has no data");
        tensor.data = static_cast<const float*>(data);
        return tensor;
    }

    // Null where nothing reads the output `index`.
    float* output(size_t index, const Shape& shape) const {
        if (index >= outputs_) return nullptr;
        Value* value = nullptr;
        check(api_, api_.output(context_, index, shape.data(), shape.size(), &value), "an output cannot be made");
        if (value == nullptr) return nullptr;
        void* data = nullptr;
        check(api_, api_.data(value, &data), "an output has no data");
        return static_cast<float*>(data);
    }

    Parallel parallel() const {
        return {[](void* self, size_t count, void (*fn)(void*, size_t), void* argument) {
                    const Run& run = *static_cast<const Run*>(self);
                    check(run.api_, run.api_.parallel_for(run.context_, fn, count, argument), "a task failed");
                },
                const_cast<Run*>(this)};
    }

   private:
    const Api& api_;
    KernelContext* context_;
    size_t inputs_ = 0, outputs_ = 0;
};

// Attributes of a node; each must be there.
class Attributes {
   public:
    Attributes(const Api& api, const KernelInfo* info) : api_(api), info_(info) {}

    float number(const char* name) const { return get<float>(name); }
    int64_t integer(const char* name) const { return get<int64_t>(name); }
    std::vector<int64_t> integers(const char* name, size_t count) const {
        std::vector<int64_t> values(count);
        size_t size = count;
        check(api_, api_.attribute(info_, name, values.data(), &size), name);
        if (size != count) throw Failure(name);
        return values;
    }

   private:
    template <class T>
    T get(const char* name) const {
        T value{};
        check(api_, api_.attribute(info_, name, &value), name);
        return value;
    }
    const Api& api_;
    const KernelInfo* info_;
};

inline void require(bool holds, const char* what) {
    if (!holds) throw Failure(what);
}

}  // namespace clue::ort
