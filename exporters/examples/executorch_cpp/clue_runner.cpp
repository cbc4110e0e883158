// Runs programs of a .pte file on arrays from files and prints what it took as JSON.
//
//   clue_runner FILE.pte
//   clue_runner FILE.pte [--single-thread] --run METHOD [INPUT...] [--out FOLDER] [--repeat N] [--run ...]
//
// Without --run it lists the programs. An INPUT, one for each port in the manifest's order, is a file of raw
// little-endian float32 numbers, FILE.safetensors:KEY, or METHOD.INDEX: that output of the run before. --out writes
// output i to FOLDER/METHOD.i.f32; --repeat runs N times with the same inputs.
#include "clue_program.h"

#include <executorch/extension/threadpool/threadpool_guard.h>
#include <executorch/runtime/platform/runtime.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>

namespace {

using Arrays = std::vector<std::vector<float>>;
using Results = std::map<std::string, Arrays>;

struct Request {
  std::string method, out;
  std::vector<std::string> inputs;
  int repeat = 1;
};

[[noreturn]] void usage(const std::string& problem) {
  throw std::runtime_error(
      problem + "; usage: clue_runner FILE.pte [--single-thread] --run METHOD [INPUT...] [--out FOLDER] [--repeat N]");
}

double now_ms() {
  using namespace std::chrono;
  return duration<double, std::milli>(steady_clock::now().time_since_epoch()).count();
}

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

std::vector<float> raw_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) throw std::runtime_error("cannot open " + path);
  const std::streamoff bytes = file.tellg();
  if (bytes % 4) throw std::runtime_error(path + " is no file of float32 numbers");
  std::vector<float> values(static_cast<size_t>(bytes) / 4);
  file.seekg(0);
  if (!file.read(reinterpret_cast<char*>(values.data()), bytes)) throw std::runtime_error("cannot read " + path);
  return values;
}

std::vector<float> read_input(const std::string& what, const Results& earlier) {
  const size_t colon = what.rfind(':');
  if (colon != std::string::npos && ends_with(what.substr(0, colon), ".safetensors")) {
    return clue::SafeTensors(what.substr(0, colon)).read(what.substr(colon + 1));
  }
  const size_t dot = what.rfind('.');
  const auto found = dot == std::string::npos ? earlier.end() : earlier.find(what.substr(0, dot));
  if (found != earlier.end()) {
    const size_t index = std::strtoul(what.c_str() + dot + 1, nullptr, 10);
    if (index >= found->second.size()) throw std::runtime_error(what + ": there is no such output");
    return found->second[index];
  }
  return raw_file(what);
}

void write_file(const std::string& path, const std::vector<float>& values) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(values.data()), static_cast<std::streamsize>(values.size() * sizeof(float)));
  if (!file.flush()) throw std::runtime_error("cannot write " + path);
}

std::string json_shape(const std::vector<int32_t>& shape) {
  std::string text;
  for (const int32_t size : shape) text += (text.empty() ? "" : ", ") + std::to_string(size);
  return "[" + text + "]";
}

// Loads and runs one program; returns its JSON object.
std::string carry_out(clue::ProgramFile& file, const Request& request, Results& results) {
  const double start = now_ms();
  const clue::Method& method = file.load(request.method);
  const double load_ms = now_ms() - start;
  if (request.inputs.size() != method.inputs.size()) {
    throw std::runtime_error(
        request.method + " takes " + std::to_string(method.inputs.size()) + " inputs, given are " +
        std::to_string(request.inputs.size()));
  }
  Arrays inputs, outputs;
  std::vector<const float*> in;
  std::vector<float*> out;
  for (size_t i = 0; i < method.inputs.size(); ++i) {
    inputs.push_back(read_input(request.inputs[i], results));
    if (inputs[i].size() != method.inputs[i].elements) {
      throw std::runtime_error(
          request.inputs[i] + " has " + std::to_string(inputs[i].size()) + " numbers, input " + std::to_string(i) +
          " of " + request.method + " is " + json_shape(method.inputs[i].shape));
    }
  }
  for (const auto& port : method.outputs) outputs.emplace_back(port.elements);
  for (const auto& array : inputs) in.push_back(array.data());
  for (auto& array : outputs) out.push_back(array.data());

  std::string times, shapes;
  for (int i = 0; i < request.repeat; ++i) {
    const double before = now_ms();
    file.run(request.method, in, out);
    times += (i ? ", " : "") + std::to_string(now_ms() - before);
  }
  for (size_t i = 0; i < outputs.size(); ++i) {
    shapes += (i ? ", " : "") + json_shape(method.outputs[i].shape);
    if (!request.out.empty()) {
      write_file(request.out + "/" + request.method + "." + std::to_string(i) + ".f32", outputs[i]);
    }
  }
  results[request.method] = std::move(outputs);
  return "{\"method\": \"" + request.method + "\", \"load_ms\": " + std::to_string(load_ms) + ", \"run_ms\": [" + times +
      "], \"planned_bytes\": " + std::to_string(method.planned_bytes) + ", \"outputs\": [" + shapes + "]}";
}

int run(const std::vector<std::string>& args) {
  if (args.empty()) usage("no program file is given");
  std::vector<Request> requests;
  bool single = false;
  for (size_t i = 1; i < args.size(); ++i) {
    const bool more = i + 1 < args.size();
    if (args[i] == "--single-thread") {
      single = true;
    } else if (args[i] == "--run" && more) {
      requests.emplace_back();
      requests.back().method = args[++i];
    } else if (requests.empty()) {
      usage(args[i] + " is not known before --run METHOD");
    } else if (args[i] == "--out" && more) {
      requests.back().out = args[++i];
    } else if (args[i] == "--repeat" && more) {
      requests.back().repeat = std::atoi(args[++i].c_str());
      if (requests.back().repeat < 1) usage("--repeat must be at least 1");
    } else if (args[i].rfind("--", 0) == 0) {
      usage(args[i] + " is not known or lacks its value");
    } else {
      requests.back().inputs.push_back(args[i]);
    }
  }

  // In force while programs load (the delegate takes the threads then) and run.
  std::unique_ptr<executorch::extension::threadpool::NoThreadPoolGuard> guard;
  if (single) guard = std::make_unique<executorch::extension::threadpool::NoThreadPoolGuard>();

  const double start = now_ms();
  clue::ProgramFile file(args[0]);
  const double open_ms = now_ms() - start;
  std::string names, runs;
  for (const auto& name : file.names()) names += (names.empty() ? "\"" : ", \"") + name + "\"";
  Results results;
  for (const auto& request : requests) runs += (runs.empty() ? "" : ", ") + carry_out(file, request, results);
  std::printf(
      "{\"open_ms\": %.3f, \"programs\": [%s], \"runs\": [%s]}\n", open_ms, names.c_str(), runs.c_str());
  return 0;
}

}  // namespace

int main(int count, char** values) {
  executorch::runtime::runtime_init();
  try {
    return run({values + 1, values + count});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "clue_runner: %s\n", error.what());
    return 1;
  }
}
