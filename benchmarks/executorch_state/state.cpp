// Drives one variant of state.py's step for some steps; prints times and sizes as JSON, writes the final state.
//   state FOLDER VARIANT STEPS     with FOLDER/VARIANT.pte and the input files that state.py wrote
#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>
#include <executorch/extension/threadpool/threadpool_guard.h>
#include <executorch/runtime/platform/runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <fstream>
#include <string>
#include <vector>

using executorch::extension::from_blob;
using executorch::extension::Module;
using executorch::extension::TensorPtr;
using executorch::runtime::EValue;
using Array = std::vector<float>;

template <typename T>
T must(executorch::runtime::Result<T> result, const char* what) {
  if (!result.ok()) {
    std::fprintf(stderr, "%s: error %d\n", what, static_cast<int>(result.error()));
    std::exit(1);
  }
  return std::move(*result);
}

void must(executorch::runtime::Error error, const char* what) {
  if (error != executorch::runtime::Error::Ok) {
    std::fprintf(stderr, "%s: error %d\n", what, static_cast<int>(error));
    std::exit(1);
  }
}

Array read(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  Array values(static_cast<size_t>(file.tellg()) / sizeof(float));
  file.seekg(0);
  file.read(reinterpret_cast<char*>(values.data()), static_cast<std::streamsize>(values.size() * sizeof(float)));
  return values;
}

// Runs a method on arrays shaped as it wants them. `out` may hold places for outputs without memory of their own.
std::vector<EValue> call(Module& module, const std::string& name, std::vector<float*> inputs, std::vector<float*> out = {}) {
  const auto meta = must(module.method_meta(name), "meta");
  std::vector<TensorPtr> keep;
  std::vector<EValue> values;
  const auto view = [&](const executorch::runtime::TensorInfo& info, float* data) {
    const auto sizes = info.sizes();
    keep.push_back(from_blob(data, {sizes.begin(), sizes.end()}));
    return EValue(keep.back());
  };
  for (size_t i = 0; i < inputs.size(); ++i) values.push_back(view(must(meta.input_tensor_meta(i), "input"), inputs[i]));
  for (size_t i = 0; i < out.size(); ++i) {
    must(module.set_output(name, view(must(meta.output_tensor_meta(i), "output"), out[i]), i), "set_output");
  }
  return must(module.execute(name, values), name.c_str());
}

// Of this process alone: the machine may be shared.
double cpu_ms() {
  timespec now;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return 1e3 * static_cast<double>(now.tv_sec) + 1e-6 * static_cast<double>(now.tv_nsec);
}

void take(const EValue& value, Array& into) {
  std::memcpy(into.data(), value.toTensor().const_data_ptr(), into.size() * sizeof(float));
}

int main(int, char** arguments) {
  executorch::runtime::runtime_init();
  executorch::extension::threadpool::NoThreadPoolGuard single;
  const std::string folder = std::string(arguments[1]) + "/", variant = arguments[2];
  const int steps = std::atoi(arguments[3]);
  const bool shared = variant.find("shared") == 0, unplanned = variant.find("unplanned") != std::string::npos;
  const bool own = variant.find("own") == 0;

  Array params = read(folder + "params.f32"), mask = read(folder + "mask.f32"), x = read(folder + "x.f32");
  Array teacher = read(folder + "teacher.f32"), lr = read(folder + "lr.f32"), momentum(params.size());
  Array next_params(params.size()), next_momentum(params.size()), logits(teacher.size() / steps);
  const size_t x_size = x.size() / steps, t_size = teacher.size() / steps;
  float energy = 0, kl = 0, load = 1, no_load = 0;

  Module module(folder + variant + ".pte", Module::LoadMode::Mmap, nullptr, nullptr, nullptr, shared);
  must(module.load(), "load");
  if (shared) call(module, "set_state", {params.data()});
  std::vector<double> times;
  std::vector<float> energies;
  for (int step = 0; step < steps; ++step) {
    float* xs = x.data() + step * x_size;
    float* ts = teacher.data() + step * t_size;
    const double start = cpu_ms();
    if (shared) {
      const auto found = call(module, "step", {mask.data(), xs, ts, lr.data()});
      std::memcpy(&energy, found[0].toTensor().const_data_ptr(), sizeof energy);
    } else if (own) {  // its state leaves it at the end only
      const auto found =
          call(module, "step", {step ? &no_load : &load, params.data(), mask.data(), xs, ts, lr.data()});
      std::memcpy(&energy, found[2].toTensor().const_data_ptr(), sizeof energy);
      if (step + 1 == steps) take(found[0], next_params), take(found[1], next_momentum);
    } else if (unplanned) {
      call(module, "step", {params.data(), momentum.data(), mask.data(), xs, ts, lr.data()},
           {next_params.data(), next_momentum.data(), &energy, &kl});
    } else {
      const auto found = call(module, "step", {params.data(), momentum.data(), mask.data(), xs, ts, lr.data()});
      take(found[0], next_params);
      take(found[1], next_momentum);
      std::memcpy(&energy, found[2].toTensor().const_data_ptr(), sizeof energy);
    }
    times.push_back(cpu_ms() - start);
    energies.push_back(energy);
    if (!shared && !own) params.swap(next_params), momentum.swap(next_momentum);
  }
  if (shared) {
    take(call(module, "predict", {x.data()})[0], logits);  // predict after step reads the state of step
    const auto found = call(module, "get_state", {});
    take(found[0], next_params), take(found[1], next_momentum);
  }
  const Array& last = shared || own ? next_params : params;
  const Array& velocity = shared || own ? next_momentum : momentum;
  for (const auto& [name, array] : {std::pair<const char*, const Array*>{".params", &last}, {".momentum", &velocity},
                                   {".logits", &logits}}) {
    std::ofstream(folder + variant + name, std::ios::binary)
        .write(reinterpret_cast<const char*>(array->data()), static_cast<std::streamsize>(array->size() * sizeof(float)));
  }
  long long planned = 0;
  const auto meta = must(module.method_meta("step"), "meta");
  for (size_t i = 0; i < meta.num_memory_planned_buffers(); ++i) planned += must(meta.memory_planned_buffer_size(i), "size");
  std::sort(times.begin(), times.end());
  std::printf("{\"variant\": \"%s\", \"median_ms\": %.4f, \"fastest_ms\": %.4f, \"planned_bytes\": %lld, \"energy\": [%.9g, %.9g]}\n",
              variant.c_str(), times[times.size() / 2], times[0], planned, energies.front(), energies.back());
}
