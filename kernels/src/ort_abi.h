// The few parts of ONNX Runtime's C interface that a library of custom operators needs, so that building it takes no
// header from elsewhere.
//
// The interface promises that the table of functions only grows at its end; the numbers below are the functions'
// places in it (API version 17, ONNX Runtime 1.17 and later). tests/kernels checks them against the installed runtime
// by running every operator. Source: the documentation of onnxruntime_c_api.h, OrtApi and OrtCustomOp.
#pragma once

#include <cstddef>
#include <cstdint>

namespace clue::ort {

constexpr uint32_t kApiVersion = 18;

struct Status;
struct KernelContext;
struct KernelInfo;
struct Value;
struct ShapeInfo;
struct SessionOptions;
struct Domain;
struct ShapeInferContext;

struct ApiBase {
    const void* const* (*get_api)(uint32_t version);
    const char* (*version)();
};

// The table of functions. Those that return Status* return null when all went well.
class Api {
   public:
    explicit Api(const void* const* table) : table_(table) {}

    Status* error(const char* message) const { return at<Status*(int, const char*)>(0)(1, message); }
    Status* create_domain(const char* name, Domain** out) const { return at<Status*(const char*, Domain**)>(26)(name, out); }
    Status* add_operator(Domain* domain, const void* op) const { return at<Status*(Domain*, const void*)>(27)(domain, op); }
    Status* add_domain(SessionOptions* options, Domain* domain) const {
        return at<Status*(SessionOptions*, Domain*)>(28)(options, domain);
    }
    Status* data(Value* value, void** out) const { return at<Status*(Value*, void**)>(51)(value, out); }
    Status* rank(const ShapeInfo* info, size_t* out) const { return at<Status*(const ShapeInfo*, size_t*)>(61)(info, out); }
    Status* dimensions(const ShapeInfo* info, int64_t* out, size_t rank) const {
        return at<Status*(const ShapeInfo*, int64_t*, size_t)>(62)(info, out, rank);
    }
    Status* shape(const Value* value, ShapeInfo** out) const { return at<Status*(const Value*, ShapeInfo**)>(65)(value, out); }
    Status* attribute(const KernelInfo* info, const char* name, float* out) const {
        return at<Status*(const KernelInfo*, const char*, float*)>(85)(info, name, out);
    }
    Status* attribute(const KernelInfo* info, const char* name, int64_t* out) const {
        return at<Status*(const KernelInfo*, const char*, int64_t*)>(86)(info, name, out);
    }
    Status* attribute(const KernelInfo* info, const char* name, int64_t* out, size_t* size) const {
        return at<Status*(const KernelInfo*, const char*, int64_t*, size_t*)>(163)(info, name, out, size);
    }
    Status* input_count(const KernelContext* context, size_t* out) const {
        return at<Status*(const KernelContext*, size_t*)>(88)(context, out);
    }
    Status* output_count(const KernelContext* context, size_t* out) const {
        return at<Status*(const KernelContext*, size_t*)>(89)(context, out);
    }
    Status* input(const KernelContext* context, size_t index, const Value** out) const {
        return at<Status*(const KernelContext*, size_t, const Value**)>(90)(context, index, out);
    }
    Status* output(KernelContext* context, size_t index, const int64_t* shape, size_t rank, Value** out) const {
        return at<Status*(KernelContext*, size_t, const int64_t*, size_t, Value**)>(91)(context, index, shape, rank, out);
    }
    void release(Status* status) const { at<void(Status*)>(93)(status); }
    void release(ShapeInfo* info) const { at<void(ShapeInfo*)>(99)(info); }
    Status* parallel_for(const KernelContext* context, void (*fn)(void*, size_t), size_t total, void* argument) const {
        return at<Status*(const KernelContext*, void (*)(void*, size_t), size_t, size_t, void*)>(274)(context, fn, total, 0,
                                                                                                    argument);
    }

   private:
    template <class F>
    F* at(int place) const {
        return reinterpret_cast<F*>(const_cast<void*>(table_[place]));
    }
    const void* const* table_;
};

enum Characteristic { kRequired = 0, kOptional = 1, kVariadic = 2 };
constexpr int kFloat = 1;  // the element type

// An operator as the runtime sees it.
struct CustomOp {
    uint32_t version;
    void* (*create_old)(const CustomOp*, const void*, const KernelInfo*);
    const char* (*name)(const CustomOp*);
    const char* (*provider)(const CustomOp*);
    int (*input_type)(const CustomOp*, size_t);
    size_t (*input_count)(const CustomOp*);
    int (*output_type)(const CustomOp*, size_t);
    size_t (*output_count)(const CustomOp*);
    void (*compute_old)(void*, KernelContext*);
    void (*destroy)(void*);
    int (*input_characteristic)(const CustomOp*, size_t);
    int (*output_characteristic)(const CustomOp*, size_t);
    int (*input_memory)(const CustomOp*, size_t);
    int (*variadic_input_least)(const CustomOp*);
    int (*variadic_input_alike)(const CustomOp*);
    int (*variadic_output_least)(const CustomOp*);
    int (*variadic_output_alike)(const CustomOp*);
    Status* (*create)(const CustomOp*, const void* const* api, const KernelInfo*, void** kernel);
    Status* (*compute)(void*, KernelContext*);
    Status* (*infer_shape)(const CustomOp*, ShapeInferContext*);
    int (*start_version)(const CustomOp*);
    int (*end_version)(const CustomOp*);
    size_t (*may_in_place)(int** inputs, int** outputs);
    void (*release_in_place)(int* inputs, int* outputs);
    size_t (*alias)(int** inputs, int** outputs);
    void (*release_alias)(int* inputs, int* outputs);
};

}  // namespace clue::ort
