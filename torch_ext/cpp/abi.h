// Owns the conventions of the C ABI that the files beside it offer.
//
// A tensor crosses as `at::Tensor *`, which is what tch holds; a list as a pointer and a length.
// Every function that can fail returns 0, or 1 with a text in `*error` that the caller releases with
// `gradus_free`. No exception leaves these files.

#pragma once

#include <cstddef>
#include <cstring>
#include <exception>
#include <vector>

#include <ATen/core/Tensor.h>

namespace {

using Handle = at::Tensor *;

template <typename Body>
int guarded(char **error, Body body) {
  try {
    body();
    return 0;
  } catch (const c10::Error &e) {
    // Without libtorch's stack trace, which says nothing to the reader of a log.
    *error = strdup(e.what_without_backtrace());
  } catch (const std::exception &e) {
    *error = strdup(e.what());
  } catch (...) {
    *error = strdup("an exception of an unknown type");
  }
  return 1;
}

inline std::vector<at::Tensor> list(const Handle *handles, size_t n) {
  std::vector<at::Tensor> tensors;
  tensors.reserve(n);
  for (size_t i = 0; i < n; ++i) {
    TORCH_CHECK(handles[i] != nullptr && handles[i]->defined(), "tensor ", i, " is undefined");
    tensors.push_back(*handles[i]);
  }
  return tensors;
}

}  // namespace
