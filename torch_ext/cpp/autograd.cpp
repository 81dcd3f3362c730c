// Owns nodes of libtorch's autograd graph whose backward pass is a closure of the caller.
// Does not know what the closure computes; `src/autograd.rs` is the other side.

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>
#include <torch/csrc/autograd/variable.h>

#include "abi.h"

namespace {

using torch::autograd::variable_list;

// Hands over every tensor it is given; `gradients[i]` is null where nothing depends on output i.
// Fills `results[i]` with a new tensor or null. Returns 0, or 1 with a text from `malloc`.
using BackwardFunction = int (*)(void *closure, Handle *saved, size_t n_saved, Handle *gradients,
                                 size_t n_gradients, const bool *wanted, Handle *results,
                                 size_t n_results, char **error);
using DropFunction = void (*)(void *closure);

// The caller's closure, dropped exactly once.
using Closure = std::unique_ptr<void, DropFunction>;

struct Form {
  explicit Form(const at::Tensor &tensor)
      : sizes(tensor.sizes().vec()), type(tensor.scalar_type()), device(tensor.device()) {}
  std::vector<int64_t> sizes;
  at::ScalarType type;
  at::Device device;
};

std::vector<Handle> hand_over(const variable_list &tensors) {
  std::vector<Handle> handles;
  handles.reserve(tensors.size());
  for (const at::Tensor &tensor : tensors) {
    handles.push_back(tensor.defined() ? new at::Tensor(tensor) : nullptr);
  }
  return handles;
}

struct ClosureNode final : torch::autograd::Node {
  ClosureNode(std::string name, Closure closure, BackwardFunction backward)
      : label(std::move(name)), closure(std::move(closure)), backward(backward) {}

  std::string name() const override { return label; }

  variable_list apply(variable_list &&gradients) override {
    TORCH_CHECK(!at::GradMode::is_enabled(), label,
                " has no second derivative: run backward without create_graph");
    // The engine may call from several threads, and the closure need not allow that.
    const std::lock_guard<std::mutex> lock(mutex_);
    TORCH_CHECK(closure != nullptr, label,
                " has no saved tensors any more: run the first backward with keep_graph");
    variable_list values;
    values.reserve(saved.size());
    for (const auto &variable : saved) {
      values.push_back(variable.unpack(shared_from_this()));
    }
    const auto n_inputs = inputs.size();
    const std::unique_ptr<bool[]> wanted(new bool[n_inputs]);
    for (size_t i = 0; i < n_inputs; ++i) {
      wanted[i] = task_should_compute_output(i);
    }
    return checked(call(values, gradients, wanted.get()), wanted.get());
  }

  void release_variables() override {
    std::vector<torch::autograd::SavedVariable> old_saved;
    Closure old_closure(nullptr, closure.get_deleter());
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      old_saved.swap(saved);
      old_closure.swap(closure);
    }
  }

  variable_list call(const variable_list &values, const variable_list &gradients,
                     const bool *wanted) {
    std::vector<Handle> saved_handles = hand_over(values);
    std::vector<Handle> gradient_handles = hand_over(gradients);
    std::vector<Handle> results(inputs.size(), nullptr);
    char *error = nullptr;
    const int failed = backward(closure.get(), saved_handles.data(), saved_handles.size(),
                                gradient_handles.data(), gradient_handles.size(), wanted,
                                results.data(), results.size(), &error);
    variable_list found(results.size());
    for (size_t i = 0; i < results.size(); ++i) {
      if (results[i] != nullptr) {
        found[i] = *results[i];
        delete results[i];
      }
    }
    if (failed != 0) {
      const std::string text = error == nullptr ? "out of memory for the message" : error;
      std::free(error);
      throw std::runtime_error(label + ": " + text);
    }
    return found;
  }

  // What the closure gave, where it was wanted, each like its input.
  variable_list checked(variable_list found, const bool *wanted) const {
    for (size_t i = 0; i < found.size(); ++i) {
      if (!wanted[i] || !found[i].defined()) {
        found[i] = at::Tensor();
        continue;
      }
      const Form &input = inputs[i];
      TORCH_CHECK(found[i].sizes() == input.sizes && found[i].scalar_type() == input.type &&
                      found[i].device() == input.device,
                  label, ": the gradient of input ", i, " has shape ", found[i].sizes(), ", type ",
                  found[i].scalar_type(), " and device ", found[i].device(), ", and the input ",
                  input.sizes, ", ", input.type, " and ", input.device);
    }
    return found;
  }

  std::string label;
  Closure closure;
  BackwardFunction backward;
  std::vector<Form> inputs;
  std::vector<torch::autograd::SavedVariable> saved;
};

// Another handle on the values, with a place of its own in the graph and the same version counter.
// The caller's handle stays outside of the graph, so a closure that keeps it makes no cycle.
at::Tensor linkable(const at::Tensor &tensor) {
  return at::Tensor(tensor.unsafeGetTensorImpl()->shallow_copy_and_detach(
      torch::autograd::impl::version_counter(tensor), /*allow_tensor_metadata_change=*/true));
}

}  // namespace

extern "C" {

// Takes the closure over in every case. `results[i]` becomes a new handle on the values of output i,
// with a node in the graph if gradients are recorded and an input requires one.
int gradus_custom_function(const char *name, const Handle *inputs, size_t n_inputs,
                           const Handle *outputs, size_t n_outputs, const Handle *saved,
                           size_t n_saved, void *closure, BackwardFunction backward,
                           DropFunction drop, Handle *results, char **error) {
  Closure owned(closure, drop);
  return guarded(error, [&] {
    TORCH_CHECK(n_inputs > 0 && n_outputs > 0, name, ": a function has inputs and outputs");
    const variable_list given = list(inputs, n_inputs);
    const variable_list made = list(outputs, n_outputs);
    variable_list linked;
    for (const at::Tensor &output : made) {
      TORCH_CHECK(!output.requires_grad(), name, ": an output has a gradient function already");
      linked.push_back(linkable(output));
    }
    if (at::GradMode::is_enabled() && torch::autograd::compute_requires_grad(given)) {
      const std::shared_ptr<ClosureNode> node(new ClosureNode(name, std::move(owned), backward),
                                              torch::autograd::deleteNode);
      node->set_next_edges(torch::autograd::collect_next_edges(given));
      for (const at::Tensor &input : given) {
        node->inputs.emplace_back(input);
      }
      for (const at::Tensor &tensor : list(saved, n_saved)) {
        node->saved.emplace_back(tensor, /*is_output=*/false);
      }
      torch::autograd::set_history(linked, node);
    }
    for (size_t i = 0; i < n_outputs; ++i) {
      results[i] = new at::Tensor(linked[i]);
    }
  });
}

int gradus_is_recording(bool *is_recording, char **error) {
  return guarded(error, [&] { *is_recording = at::GradMode::is_enabled(); });
}

// A copy of a text of `length` bytes that `gradus_free` releases; null without memory.
char *gradus_copy_text(const char *text, size_t length) { return strndup(text, length); }

}  // extern "C"
