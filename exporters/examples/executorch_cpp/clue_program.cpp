#include "clue_program.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

namespace clue {

using executorch::extension::from_blob;
using executorch::extension::TensorPtr;
using executorch::runtime::Error;
using executorch::runtime::EValue;
using executorch::runtime::Result;
using executorch::runtime::TensorInfo;

namespace {

[[noreturn]] void fail(const std::string& text) { throw std::runtime_error(text); }

void check(Error error, const std::string& what) {
  if (error != Error::Ok) {
    fail(what + ": " + executorch::runtime::to_string(error) + " (ExecuTorch error " +
         std::to_string(static_cast<int>(error)) + ")");
  }
}

// A safetensors header is one JSON object of {name: {"dtype": ..., "shape": ..., "data_offsets": [begin, end]}}.
// This reads exactly that and refuses everything else; names are plain (no escapes).
class Header {
 public:
  Header(const std::string& text, const std::string& path) : text_(text), path_(path) {}

  template <typename Each>
  void entries(Each each) {
    take('{');
    while (peek() != '}') {
      const std::string name = string();
      take(':');
      const size_t start = at_;
      skip_value();
      each(name, text_.substr(start, at_ - start));
      if (peek() == ',') ++at_;
    }
  }

 private:
  char peek() {
    while (at_ < text_.size() && std::strchr(" \t\r\n", text_[at_])) ++at_;
    if (at_ >= text_.size()) fail(path_ + " has a damaged header");
    return text_[at_];
  }
  void take(char wanted) {
    if (peek() != wanted) fail(path_ + " has a damaged header");
    ++at_;
  }
  std::string string() {
    take('"');
    const size_t end = text_.find('"', at_);
    if (end == std::string::npos) fail(path_ + " has a damaged header");
    const std::string name = text_.substr(at_, end - at_);
    if (name.find('\\') != std::string::npos) fail(path_ + " has a name with an escape: " + name);
    at_ = end + 1;
    return name;
  }
  void skip_value() {  // objects, lists and numbers; strings inside of metadata may have escapes
    int depth = 0;
    do {
      const char c = peek();
      if (c == '"') {
        for (++at_; at_ < text_.size() && text_[at_] != '"'; ++at_) at_ += text_[at_] == '\\';
      }
      depth += (c == '{' || c == '[') - (c == '}' || c == ']');
      ++at_;
    } while (depth > 0 || (peek() != ',' && peek() != '}'));
  }

  const std::string& text_;
  const std::string& path_;
  size_t at_ = 0;
};

Port port(const Result<TensorInfo>& info, const std::string& where) {
  check(info.error(), where);
  if (info->scalar_type() != executorch::aten::ScalarType::Float) fail(where + " is not float32");
  const auto sizes = info->sizes();
  Port made{{sizes.begin(), sizes.end()}, 1, info->is_memory_planned()};
  for (const int32_t size : made.shape) made.elements *= static_cast<size_t>(size);
  return made;
}

}  // namespace

SafeTensors::SafeTensors(const std::string& path) : path_(path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) fail("cannot open " + path);
  const uint64_t bytes = static_cast<uint64_t>(file.tellg());
  file.seekg(0);
  unsigned char raw[8];  // the header's length, little-endian
  if (bytes < 8 || !file.read(reinterpret_cast<char*>(raw), 8)) fail(path + " is no safetensors file");
  uint64_t length = 0;
  for (int i = 7; i >= 0; --i) length = length << 8 | raw[i];
  if (length > bytes - 8) fail(path + " is no safetensors file, or is cut off");
  std::string header(length, '\0');
  if (!file.read(&header[0], static_cast<std::streamsize>(length))) fail("cannot read " + path);
  Header(header, path_).entries([&](const std::string& name, const std::string& value) {
    if (name == "__metadata__") return;
    unsigned long long begin = 0, end = 0;
    const size_t place = value.find("\"data_offsets\"");
    if (place == std::string::npos ||
        std::sscanf(value.c_str() + place, "\"data_offsets\" : [ %llu , %llu ]", &begin, &end) != 2 ||
        begin > end || end > bytes - 8 - length) {
      fail(path_ + ": tensor " + name + " lies outside the file");
    }
    spans_[name] = {8 + length + begin, 8 + length + end, value.find("\"F32\"") != std::string::npos};
  });
}

std::vector<float> SafeTensors::read(const std::string& key) const {
  const auto found = spans_.find(key);
  if (found == spans_.end()) fail(path_ + " has no tensor " + key);
  const Span& span = found->second;
  if (!span.float32 || (span.end - span.begin) % sizeof(float)) fail(path_ + ": tensor " + key + " is not float32");
  std::vector<float> values((span.end - span.begin) / sizeof(float));
  std::ifstream file(path_, std::ios::binary);
  file.seekg(static_cast<std::streamoff>(span.begin));
  if (!file.read(reinterpret_cast<char*>(values.data()), static_cast<std::streamsize>(span.end - span.begin))) {
    fail("cannot read " + path_);
  }
  return values;  // little-endian in the file, as on every machine that ExecuTorch runs on
}

std::vector<std::string> SafeTensors::keys() const {
  std::vector<std::string> names;
  for (const auto& each : spans_) names.push_back(each.first);
  return names;
}

// Mmap: the file's constants are paged in when they are used and count as cache, not as the application's memory.
ProgramFile::ProgramFile(const std::string& path)
    : module_(path, executorch::extension::Module::LoadMode::Mmap), path_(path) {
  check(module_.load(), "cannot load " + path);
}

std::vector<std::string> ProgramFile::names() {
  const auto found = module_.method_names();
  check(found.error(), "cannot read the programs of " + path_);
  std::vector<std::string> sorted(found->begin(), found->end());
  std::sort(sorted.begin(), sorted.end());
  return sorted;
}

const Method& ProgramFile::load(const std::string& name) {
  const auto known = methods_.find(name);
  if (known != methods_.end()) return known->second;
  const auto all = names();
  if (std::find(all.begin(), all.end(), name) == all.end()) {
    std::string list;
    for (const auto& each : all) list += (list.empty() ? "" : ", ") + each;
    fail(path_ + " has no program " + name + ": it has " + list);
  }
  check(module_.load_method(name), "cannot load program " + name + " of " + path_);
  const auto meta = module_.method_meta(name);
  check(meta.error(), "cannot read the ports of " + name);
  Method method{{}, {}, 0};
  for (size_t i = 0; i < meta->num_inputs(); ++i) {
    method.inputs.push_back(port(meta->input_tensor_meta(i), name + ", input " + std::to_string(i)));
  }
  for (size_t i = 0; i < meta->num_outputs(); ++i) {
    method.outputs.push_back(port(meta->output_tensor_meta(i), name + ", output " + std::to_string(i)));
  }
  for (size_t i = 0; i < meta->num_memory_planned_buffers(); ++i) {
    const auto size = meta->memory_planned_buffer_size(i);
    check(size.error(), "cannot read the memory plan of " + name);
    method.planned_bytes += static_cast<size_t>(*size);
  }
  return methods_[name] = method;
}

void ProgramFile::run(
    const std::string& name, const std::vector<const float*>& inputs, const std::vector<float*>& outputs) {
  const Method& method = load(name);
  if (inputs.size() != method.inputs.size() || outputs.size() != method.outputs.size()) {
    fail(name + " takes " + std::to_string(method.inputs.size()) + " arrays and gives " +
         std::to_string(method.outputs.size()) + ", not " + std::to_string(inputs.size()) + " and " +
         std::to_string(outputs.size()));
  }
  std::vector<TensorPtr> tensors;  // views of the application's arrays, alive until the program has ended
  std::vector<EValue> values;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const auto& shape = method.inputs[i].shape;
    // a program never writes into its inputs; the interface only has no constant tensor
    tensors.push_back(from_blob(const_cast<float*>(inputs[i]), {shape.begin(), shape.end()}));
    values.emplace_back(tensors.back());
  }
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (method.outputs[i].planned) continue;
    const auto& shape = method.outputs[i].shape;
    tensors.push_back(from_blob(outputs[i], {shape.begin(), shape.end()}));
    check(module_.set_output(name, EValue(tensors.back()), i), name + ", output " + std::to_string(i));
  }
  const auto results = module_.execute(name, values);
  check(results.error(), "program " + name + " failed");
  for (size_t i = 0; i < outputs.size(); ++i) {
    // a planned output lies in memory that the next run overwrites; one that is an input keeps that place
    const void* made = (*results)[i].toTensor().const_data_ptr();
    if (made != outputs[i]) std::memcpy(outputs[i], made, method.outputs[i].elements * sizeof(float));
  }
}

}  // namespace clue
