// The entry point of the library: SessionOptions.register_custom_ops_library finds it by its name.
#include <memory>

#include "ort_ops.h"

namespace clue::ort {
namespace {

constexpr int kOperators = 3;  // the version of the domain "clue"; 1 had norms with ReLU only, 2 no `after`, pools, Gelu, Image, Sgd

// An operator's class as the table of functions that the runtime calls.
template <class Op>
class Registered : public CustomOp {
    struct Kernel {
        Api api;
        const Kernels& kernels;
        Op op;
    };

   public:
    Registered() : CustomOp{} {
        version = kApiVersion;
        name = [](const CustomOp*) { return Op::kName; };
        provider = [](const CustomOp*) -> const char* { return nullptr; };  // the processor
        input_type = output_type = [](const CustomOp*, size_t) { return kFloat; };
        input_count = [](const CustomOp*) { return Op::kInputs; };
        output_count = [](const CustomOp*) { return Op::kOutputs; };
        input_characteristic = [](const CustomOp*, size_t i) -> int {
            if (Op::kVariadic && i + 1 == Op::kInputs) return kVariadic;
            return i < Op::kLeastInputs ? kRequired : kOptional;
        };
        output_characteristic = [](const CustomOp*, size_t i) -> int { return i < Op::kLeastOutputs ? kRequired : kOptional; };
        input_memory = [](const CustomOp*, size_t) { return 0; };
        variadic_input_least = variadic_output_least = [](const CustomOp*) { return 1; };
        variadic_input_alike = variadic_output_alike = [](const CustomOp*) { return 1; };
        start_version = [](const CustomOp*) { return kOperators; };
        end_version = [](const CustomOp*) { return 0x7fffffff; };
        if constexpr (Op::kInPlace) {
            may_in_place = [](int** inputs, int** outputs) -> size_t {
                *inputs = new int(0), *outputs = new int(0);
                return 1;
            };
            release_in_place = [](int* inputs, int* outputs) { delete inputs, delete outputs; };
        }
        destroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
        create = [](const CustomOp*, const void* const* table, const KernelInfo* info, void** out) -> Status* {
            const Api api(table);
            try {
                *out = new Kernel{api, *kernels(), Op(Attributes(api, info))};
                return nullptr;
            } catch (const std::exception& error) {
                return api.error((std::string("clue.") + Op::kName + ": " + error.what()).c_str());
            }
        };
        compute = [](void* self, KernelContext* context) -> Status* {
            const Kernel& kernel = *static_cast<const Kernel*>(self);
            try {
                kernel.op(kernel.kernels, Run(kernel.api, context));
                return nullptr;
            } catch (const std::exception& error) {
                return kernel.api.error((std::string("clue.") + Op::kName + ": " + error.what()).c_str());
            }
        };
    }
};

template <class Op>
Status* add(const Api& api, Domain* domain) {
    static const Registered<Op> op;
    return api.add_operator(domain, &op);
}

// Operators are added one after the other until one cannot be.
template <class... Ops>
Status* add_all(const Api& api, Domain* domain) {
    Status* status = nullptr;
    (void)((status = add<Ops>(api, domain), status == nullptr) && ...);
    return status;
}

}  // namespace
}  // namespace clue::ort

extern "C" __attribute__((visibility("default"))) clue::ort::Status* RegisterCustomOps(
    clue::ort::SessionOptions* options, const clue::ort::ApiBase* base) {
    using namespace clue::ort;
    const void* const* table = base->get_api(kApiVersion);
    if (table == nullptr) return nullptr;  // older than 1.18: the session then says that an operator is unknown
    const Api api(table);
    if (clue::kernels() == nullptr)
        return api.error("clue kernels need a processor with AVX2 and FMA: use programs of stock operators here");
    static Domain* domain = nullptr;  // lives as long as the process: sessions keep pointing at it
    if (domain == nullptr) {
        if (Status* status = api.create_domain("clue", &domain)) return status;
        if (Status* status = add_all<ConvOp, ConvGradOp, ConvInputGradOp, ConvWeightGradOp, MaxPoolOp, MaxPoolGradOp, StatsOp, NormOp, NormGradOp, LayerNormOp,
                                     LayerNormGradOp, GeluOp, GeluGradOp, ImageOp, PartOp, SgdOp>(api, domain))
            return status;
    }
    return api.add_domain(options, domain);
}

// For programs outside ONNX Runtime, such as tests: the instruction set in use, or "" where there is none.
extern "C" __attribute__((visibility("default"))) const char* clue_kernels_name() {
    const clue::Kernels* found = clue::kernels();
    return found ? found->name : "";
}
