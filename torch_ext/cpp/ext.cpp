// Owns the C ABI over the parts of libtorch that tch lacks; `src/ffi.rs` declares the same functions.
// Keeps no state of its own and frees nothing that it was given. The conventions are in `abi.h`.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include <malloc.h>

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>
#include <ATen/record_function.h>
#include <torch/headeronly/version.h>

#include "abi.h"

namespace {

void check_like(const char *what, size_t i, const at::Tensor &found, const at::Tensor &wanted) {
  TORCH_CHECK(found.sizes() == wanted.sizes(), what, " ", i, " has shape ", found.sizes(),
              " and its parameter ", wanted.sizes());
  TORCH_CHECK(found.scalar_type() == wanted.scalar_type(), what, " ", i, " has type ",
              found.scalar_type(), " and its parameter ", wanted.scalar_type());
  TORCH_CHECK(found.device() == wanted.device(), what, " ", i, " is on ", found.device(),
              " and its parameter on ", wanted.device());
  // The fused kernel walks the raw memory of all four tensors side by side.
  TORCH_CHECK(found.is_contiguous() && wanted.is_contiguous(), what, " ", i,
              " or its parameter is not contiguous");
}

// The gradients of those parameters that have one.
std::vector<at::Tensor> gradients(const Handle *parameters, size_t n) {
  std::vector<at::Tensor> found;
  found.reserve(n);
  for (const at::Tensor &parameter : list(parameters, n)) {
    if (parameter.grad().defined()) {
      found.push_back(parameter.grad());
    }
  }
  TORCH_CHECK(!found.empty(), "no parameter has a gradient");
  return found;
}

// Sums in half precision would lose the small tensors.
at::ScalarType wide(const at::Tensor &tensor) {
  return tensor.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

// The norm of a tensor on a CPU, in f64. There libtorch sums a whole tensor in one f32, which loses the
// small squares of a large one: 0.1 % of the norm at 25 million numbers, 2 % at 134 million. Rows are
// short enough to be exact to rounding.
at::Tensor norm_by_rows(const at::Tensor &tensor) {
  constexpr int64_t ROW = 256;
  constexpr int64_t SHORT = 1024;
  const auto norm = [kind = wide(tensor)](const at::Tensor &part, at::OptionalIntArrayRef over) {
    return at::linalg_vector_norm(part, 2, over, /*keepdim=*/false, kind);
  };
  if (tensor.numel() <= SHORT) {
    return norm(tensor, std::nullopt).to(at::kDouble);
  }
  const at::Tensor flat = tensor.flatten();
  const int64_t n_rows = flat.numel() / ROW;
  const int64_t whole = n_rows * ROW;
  const at::Tensor rows = flat.narrow(0, 0, whole).view({n_rows, ROW});
  std::vector<at::Tensor> norms = {norm(rows, at::IntArrayRef{1})};
  if (whole < flat.numel()) {
    norms.push_back(norm(flat.narrow(0, whole, flat.numel() - whole), std::nullopt).reshape({1}));
  }
  return at::linalg_vector_norm(at::cat(norms), 2, std::nullopt, /*keepdim=*/false, at::kDouble);
}

// A tensor without dimensions on the gradients' device, which has not been waited for.
at::Tensor total_norm(const std::vector<at::Tensor> &gradients) {
  std::vector<at::Tensor> norms;
  norms.reserve(gradients.size());
  const at::ScalarType kind = wide(gradients[0]);
  for (const at::Tensor &gradient : gradients) {
    TORCH_CHECK(gradient.device() == gradients[0].device(), "gradients are on several devices");
  }
  if (gradients[0].is_cpu()) {
    for (const at::Tensor &gradient : gradients) {
      norms.push_back(norm_by_rows(gradient));
    }
    return at::linalg_vector_norm(at::stack(norms)).to(kind);
  }
  for (const at::Tensor &norm : at::_foreach_norm(gradients, 2, std::nullopt)) {
    norms.push_back(norm.to(kind));
  }
  return at::linalg_vector_norm(at::stack(norms));
}

// min(1, max_norm / (norm + 1e-6)), and 1 where the norm is not finite; in f64 until the last.
at::Tensor clip_factor(const at::Tensor &norm, double max_norm) {
  const at::Tensor wide = norm.to(at::kDouble);
  const at::Tensor factor = at::full_like(wide, max_norm).div(wide + 1e-6).clamp_max(1.0);
  return at::where(wide.isfinite(), factor, at::ones_like(wide)).to(norm.scalar_type());
}

// What this thread did since the recorder was made.
struct Recorder {
  std::string lines;
  at::CallbackHandle handle = 0;
};

thread_local std::unique_ptr<Recorder> recorder;

void write_sizes(std::string &line, const at::Tensor &tensor) {
  if (!tensor.defined()) {
    return;
  }
  line += " [";
  for (const int64_t size : tensor.sizes()) {
    line += std::to_string(size) + ",";
  }
  line += "]";
}

// libtorch calls this at the beginning of every operation, also of one that another one begins.
std::unique_ptr<at::ObserverContext> write_down(const at::RecordFunction &operation) {
  if (recorder != nullptr) {
    std::string &lines = recorder->lines;
    lines += operation.name();
    for (const c10::IValue &input : operation.inputs()) {
      if (input.isTensor()) {
        write_sizes(lines, input.toTensor());
      } else if (input.isTensorList()) {
        for (const at::Tensor &tensor : input.toTensorVector()) {
          write_sizes(lines, tensor);
        }
      }
    }
    lines += "\n";
  }
  return nullptr;
}

}  // namespace

extern "C" {

void gradus_free(char *text) { std::free(text); }

const char *gradus_libtorch_version() { return TORCH_VERSION; }

int gradus_cpu_capability(char **out, char **error) {
  return guarded(error, [&] { *out = strdup(at::get_cpu_capability().c_str()); });
}

int gradus_configuration(char **out, char **error) {
  return guarded(error, [&] { *out = strdup(at::show_config().c_str()); });
}

int gradus_adamw_step(const Handle *parameters, const Handle *grads, const Handle *exp_avgs,
                      const Handle *exp_avg_sqs, size_t n, const at::Tensor *step, double lr,
                      double beta1, double beta2, double weight_decay, double eps, char **error) {
  return guarded(error, [&] {
    at::NoGradGuard no_grad;
    TORCH_CHECK(n > 0, "no parameters");
    TORCH_CHECK(step->dim() == 0 && step->scalar_type() == at::kFloat, "step is no f32 scalar");
    auto p = list(parameters, n), g = list(grads, n);
    auto m = list(exp_avgs, n), v = list(exp_avg_sqs, n);
    for (size_t i = 0; i < n; ++i) {
      TORCH_CHECK(p[i].device() == p[0].device(), "parameters are on several devices");
      check_like("gradient", i, g[i], p[i]);
      check_like("first moment", i, m[i], p[i]);
      check_like("second moment", i, v[i], p[i]);
    }
    // The kernel only reads the count, so that one tensor serves all parameters.
    const std::vector<at::Tensor> steps(n, *step);
    at::_fused_adamw_(p, g, m, v, {}, steps, lr, beta1, beta2, weight_decay, eps,
                      /*amsgrad=*/false, /*maximize=*/false);
  });
}

int gradus_clear_gradients(const Handle *parameters, size_t n, char **error) {
  return guarded(error, [&] {
    for (at::Tensor &parameter : list(parameters, n)) {
      parameter.mutable_grad().reset();
    }
  });
}

// `*norm` becomes a new tensor that the caller owns.
int gradus_gradient_norm(const Handle *parameters, size_t n, Handle *norm, char **error) {
  return guarded(error, [&] {
    at::NoGradGuard no_grad;
    *norm = new at::Tensor(total_norm(gradients(parameters, n)));
  });
}

// Reads nothing back from the device. `*norm` becomes a new tensor, that before clipping.
int gradus_clip_gradients(const Handle *parameters, size_t n, double max_norm, Handle *norm,
                          char **error) {
  return guarded(error, [&] {
    at::NoGradGuard no_grad;
    const std::vector<at::Tensor> found = gradients(parameters, n);
    const at::Tensor before = total_norm(found);
    const at::Tensor factor = clip_factor(before, max_norm);
    // On the CPU the factor is there to be seen, and a pass over all gradients can be saved.
    if (!factor.is_cpu() || factor.item<double>() != 1.0) {
      at::_foreach_mul_(found, factor);
    }
    *norm = new at::Tensor(before);
  });
}

int gradus_scale_gradients(const Handle *parameters, size_t n, double factor, char **error) {
  return guarded(error, [&] {
    at::NoGradGuard no_grad;
    at::_foreach_mul_(gradients(parameters, n), at::Scalar(factor));
  });
}

int gradus_set_threads(int intra_op, char **error) {
  return guarded(error, [&] { at::set_num_threads(intra_op); });
}

int gradus_set_inter_op_threads(int inter_op, char **error) {
  return guarded(error, [&] { at::set_num_interop_threads(inter_op); });
}

int gradus_threads(int *intra_op, int *inter_op, char **error) {
  return guarded(error, [&] {
    *intra_op = at::get_num_threads();
    *inter_op = static_cast<int>(at::get_num_interop_threads());
  });
}

// Both thresholds are set, because setting one ends glibc's own adjustment of the other. Threads keep
// arenas of their own: oneDNN's products in bf16 take scratch memory in each thread of a team, and one
// arena for all had the team asleep before its lock 4,500 times a second.
int gradus_keep_freed_memory(char **error) {
  return guarded(error, [&] {
    constexpr int LARGEST_KEPT = 32 << 20;  // The most that glibc takes.
    constexpr int NEVER = -1;
    TORCH_CHECK(mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT) == 1, "malloc refused its mmap threshold");
    TORCH_CHECK(mallopt(M_TRIM_THRESHOLD, NEVER) == 1, "malloc refused its trim threshold");
  });
}

void gradus_release_freed_memory() { malloc_trim(0); }

int gradus_set_deterministic(bool on, char **error) {
  return guarded(error, [&] {
    at::globalContext().setDeterministicAlgorithms(on, /*warn_only=*/false);
    // Filling fresh memory is for finding bugs and costs a pass over every new tensor.
    at::globalContext().setDeterministicFillUninitializedMemory(false);
  });
}

int gradus_is_deterministic(bool *on, char **error) {
  return guarded(error, [&] { *on = at::globalContext().deterministicAlgorithms(); });
}

// `*state` becomes a new byte tensor that the caller owns.
int gradus_generator_state(Handle *state, char **error) {
  return guarded(error, [&] {
    const at::Generator generator = at::detail::getDefaultCPUGenerator();
    std::lock_guard<std::mutex> lock(const_cast<at::Generator &>(generator).mutex());
    *state = new at::Tensor(generator.get_state());
  });
}

int gradus_set_generator_state(const at::Tensor *state, char **error) {
  return guarded(error, [&] {
    at::Generator generator = at::detail::getDefaultCPUGenerator();
    std::lock_guard<std::mutex> lock(generator.mutex());
    generator.set_state(*state);
  });
}

// Switches autocast of a device's matrix products to bf16 on for this thread, and says what was before.
int gradus_autocast_enter(bool is_cuda, bool *was_enabled, int8_t *was_dtype, char **error) {
  return guarded(error, [&] {
    const c10::DeviceType device = is_cuda ? at::kCUDA : at::kCPU;
    *was_enabled = at::autocast::is_autocast_enabled(device);
    *was_dtype = static_cast<int8_t>(at::autocast::get_autocast_dtype(device));
    at::autocast::set_autocast_dtype(device, at::kBFloat16);
    at::autocast::set_autocast_enabled(device, true);
    at::autocast::increment_nesting();
  });
}

int gradus_autocast_leave(bool is_cuda, bool was_enabled, int8_t was_dtype, char **error) {
  return guarded(error, [&] {
    const c10::DeviceType device = is_cuda ? at::kCUDA : at::kCPU;
    // The cached bf16 weights are stale as soon as the optimiser has stepped.
    if (at::autocast::decrement_nesting() == 0) {
      at::autocast::clear_cache();
    }
    at::autocast::set_autocast_enabled(device, was_enabled);
    at::autocast::set_autocast_dtype(device, static_cast<at::ScalarType>(was_dtype));
  });
}

int gradus_autocast_is_enabled(bool is_cuda, bool *is_enabled, char **error) {
  return guarded(error, [&] {
    *is_enabled = at::autocast::is_autocast_enabled(is_cuda ? at::kCUDA : at::kCPU);
  });
}

// Until `gradus_operations` this thread's operations are written down, one recorder at a time.
int gradus_record_operations(char **error) {
  return guarded(error, [&] {
    TORCH_CHECK(recorder == nullptr, "this thread's operations are being recorded already");
    auto begun = std::make_unique<Recorder>();
    begun->handle = at::addThreadLocalCallback(at::RecordFunctionCallback(write_down)
                                                   .needsInputs(true)
                                                   .scopes({at::RecordScope::FUNCTION}));
    recorder = std::move(begun);
  });
}

// Ends the recording. A line for each operation in the order of their beginnings: its name, then the
// sizes of each tensor that it was given.
int gradus_operations(char **out, char **error) {
  return guarded(error, [&] {
    TORCH_CHECK(recorder != nullptr, "this thread's operations are not being recorded");
    const auto ended = std::move(recorder);
    at::removeCallback(ended->handle);
    *out = strdup(ended->lines.c_str());
  });
}

}  // extern "C"
