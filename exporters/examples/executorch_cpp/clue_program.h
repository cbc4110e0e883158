// A bundle's ExecuTorch programs and weights, for embedding in a C++ application.
//
// The programs of a bundle are pure functions of flat float32 arrays: the application owns every array (weights, momentum,
// mask, ...), passes them in and gets the new ones out. manifest.json says which array each port is joined to.
#pragma once

#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>

#include <cstddef>
#include <cstdint>
#include <fstream>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

namespace clue {

// The float32 tensors of a safetensors file, read into memory one at a time.
class SafeTensors {
 public:
  explicit SafeTensors(const std::string& path);                   // throws std::runtime_error
  std::vector<float> read(const std::string& key) const;           // flattened; throws std::runtime_error
  std::vector<std::string> keys() const;

 private:
  struct Span {
    uint64_t begin, end;  // bytes from the start of the file
    bool float32;
  };
  std::string path_;
  std::map<std::string, Span> spans_;
};

// One input or output of a program.
struct Port {
  std::vector<int32_t> shape;
  size_t elements;
  bool planned;  // the array is inside the program's own memory, so what goes in or out is copied
};

// One program of the file, loaded.
struct Method {
  std::vector<Port> inputs, outputs;  // in the order of the manifest's ports
  size_t planned_bytes;               // memory that the program holds between its inputs and outputs
};

// A .pte file with one or several programs (methods). Not for use by two threads at once.
class ProgramFile {
 public:
  explicit ProgramFile(const std::string& path);                   // throws std::runtime_error
  std::vector<std::string> names();
  const Method& load(const std::string& name);                     // once; later calls return the same
  // Computes outputs[i], arrays of the ports' sizes, from inputs. No output may be an input: the program would
  // read what it is writing. To go on from a result, keep two arrays for it and swap them.
  void run(const std::string& name, const std::vector<const float*>& inputs, const std::vector<float*>& outputs);

 private:
  executorch::extension::Module module_;
  std::string path_;
  std::map<std::string, Method> methods_;
};

}  // namespace clue
