// Owns what the library does with accelerators: loading libtorch's CUDA half, asking the driver, and
// memory, streams and events through the interfaces that libtorch has for any device.
// Needs no header and no library of CUDA; `src/cuda.rs`, `src/device.rs` and `src/stream.rs` declare
// what is public. The conventions are in `abi.h`.

#include <dlfcn.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <typeinfo>

#include <ATen/Context.h>
#include <ATen/Version.h>
#include <ATen/core/CachingHostAllocator.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/Device.h>
#include <c10/core/Event.h>
#include <c10/core/Stream.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include "abi.h"

namespace {

void *open_library(const char *path, int visibility) {
  void *library = dlopen(path, RTLD_NOW | visibility);
  if (library == nullptr) {
    const char *reason = dlerror();
    throw std::runtime_error(reason == nullptr ? "dlopen gave no reason" : reason);
  }
  return library;
}

// The NVIDIA driver's own interface, which is C and the same in every version: names, memory and
// errors without CUDA's headers, and without a context, which would take memory of the device.
class Driver {
 public:
  static constexpr const char *LIBRARY = "libcuda.so.1";
  static constexpr int COMPUTE_CAPABILITY_MAJOR = 75;
  static constexpr int COMPUTE_CAPABILITY_MINOR = 76;

  explicit Driver(void *library) : library_(library) {}

  template <typename... Arguments>
  int call(const char *name, Arguments... arguments) const {
    using Function = int (*)(Arguments...);
    void *found = dlsym(library_, name);
    TORCH_CHECK(found != nullptr, LIBRARY, " has no function ", name);
    return reinterpret_cast<Function>(found)(arguments...);
  }

  void checked(int code, const char *what) const {
    TORCH_CHECK(code == 0, "the driver could not ", what, ": ", text(code));
  }

  std::string text(int code) const {
    const char *found = nullptr;
    call("cuGetErrorString", code, &found);
    const std::string words = found == nullptr ? "unknown error" : found;
    return words + " (" + std::to_string(code) + ")";
  }

 private:
  void *library_;
};

c10::Device cuda(int index) {
  TORCH_CHECK(index >= 0 && index <= INT8_MAX, "a device has no index ", index);
  return c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(index));
}

const c10::impl::DeviceGuardImplInterface &guard() {
  return *c10::impl::getDeviceGuardImpl(c10::kCUDA);
}

c10::DeviceAllocator &allocator() {
  // Before that the allocator knows no device.
  at::globalContext().lazyInitDevice(c10::kCUDA);
  return *c10::getDeviceAllocator(c10::kCUDA);
}

c10::Stream stream_of(int index, int64_t id) {
  return c10::Stream(c10::Stream::UNSAFE, cuda(index), id);
}

}  // namespace

extern "C" {

// The file that this process's `libtorch_cpu.so` comes from.
int gradus_libtorch_file(char **out, char **error) {
  return guarded(error, [&] {
    Dl_info found{};
    const void *inside = reinterpret_cast<const void *>(&at::show_config);
    TORCH_CHECK(dladdr(inside, &found) != 0 && found.dli_fname != nullptr,
                "the loader does not know where libtorch comes from");
    *out = strdup(found.dli_fname);
  });
}

// Never closed again: the library registers kernels with libtorch when it is loaded.
int gradus_open_library(const char *path, char **error) {
  return guarded(error, [&] { open_library(path, RTLD_GLOBAL); });
}

// `*is_there` says whether there is a driver; then `*n_devices` and `*version`, 13000 for 13.0, are
// set, and `*problem` has its words where it cannot be used.
int gradus_cuda_driver(bool *is_there, int *version, int *n_devices, char **problem, char **error) {
  return guarded(error, [&] {
    void *library = dlopen(Driver::LIBRARY, RTLD_NOW | RTLD_LOCAL);
    *is_there = library != nullptr;
    if (library == nullptr) {
      return;
    }
    const Driver driver(library);
    // Allowed before the driver is initialised, unlike everything else.
    driver.call("cuDriverGetVersion", version);
    int code = driver.call("cuInit", 0U);
    if (code == 0) {
      code = driver.call("cuDeviceGetCount", n_devices);
    }
    if (code != 0) {
      *problem = strdup(driver.text(code).c_str());
    }
  });
}

// Name, memory in bytes and compute capability of a device that the driver knows.
int gradus_cuda_device(int index, char **name, uint64_t *memory_bytes, int *major, int *minor,
                       char **error) {
  return guarded(error, [&] {
    const Driver driver(open_library(Driver::LIBRARY, RTLD_LOCAL));
    int device = 0;
    driver.checked(driver.call("cuDeviceGet", &device, index), "find a device");
    size_t bytes = 0;
    driver.checked(driver.call("cuDeviceTotalMem_v2", &bytes, device), "tell a device's memory");
    const auto attribute = [&](int *value, int which) {
      const int code = driver.call("cuDeviceGetAttribute", value, which, device);
      driver.checked(code, "tell a device's compute capability");
    };
    attribute(major, Driver::COMPUTE_CAPABILITY_MAJOR);
    attribute(minor, Driver::COMPUTE_CAPABILITY_MINOR);
    char text[256] = {};
    const int length = static_cast<int>(sizeof(text)) - 1;
    driver.checked(driver.call("cuDeviceGetName", &text[0], length, device), "tell a device's name");
    *memory_bytes = bytes;
    *name = strdup(text);
  });
}

// What libtorch makes of the CUDA half that is loaded: whether it took it in time, with which CUDA
// runtime (13000 for 13.0), and how many devices it can use.
int gradus_cuda_half(bool *is_taken, int *runtime_version, int *n_devices, char **error) {
  return guarded(error, [&] {
    const at::CUDAHooksInterface &hooks = at::detail::getCUDAHooks();
    // libtorch asks once and keeps the answer: what was loaded later is never used.
    *is_taken = typeid(hooks) != typeid(at::CUDAHooksInterface);
    if (*is_taken) {
      *runtime_version = static_cast<int>(hooks.versionCUDART());
      *n_devices = guard().deviceCount();
    }
  });
}

int gradus_initialize_cuda(char **error) {
  return guarded(error, [&] { at::globalContext().lazyInitDevice(c10::kCUDA); });
}

// Float32 products without TF32, and sums of bf16 products in float32: the numbers that the CPU's
// kernels promise too.
int gradus_exact_cuda_products(char **error) {
  return guarded(error, [&] {
    at::globalContext().setFloat32MatmulPrecision("highest");
    at::globalContext().setAllowTF32CuDNN(false);
    at::globalContext().setAllowBF16ReductionCuBLAS(/*allow_reduced_precision=*/false);
  });
}

int gradus_device_memory(int index, int64_t *allocated_bytes, int64_t *allocated_peak_bytes,
                         int64_t *reserved_bytes, int64_t *reserved_peak_bytes, char **error) {
  return guarded(error, [&] {
    constexpr auto ALL = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    const auto stats = allocator().getDeviceStats(cuda(index).index());
    *allocated_bytes = stats.allocated_bytes[ALL].current;
    *allocated_peak_bytes = stats.allocated_bytes[ALL].peak;
    *reserved_bytes = stats.reserved_bytes[ALL].current;
    *reserved_peak_bytes = stats.reserved_bytes[ALL].peak;
  });
}

// Gives back what the device's allocator and that of page-locked memory keep of freed tensors.
int gradus_release_device_memory(char **error) {
  return guarded(error, [&] {
    allocator().emptyCache();
    at::getHostAllocator(c10::kCUDA)->empty_cache();
  });
}

int gradus_reset_peak_memory(int index, char **error) {
  return guarded(error, [&] { allocator().resetPeakStats(cuda(index).index()); });
}

int gradus_synchronize(int index, char **error) {
  return guarded(error, [&] { guard().synchronizeDevice(cuda(index).index()); });
}

// A stream of libtorch's pool, which is never given back; `*id` names it on its device.
int gradus_stream(int index, int64_t *id, char **error) {
  return guarded(error, [&] {
    at::globalContext().lazyInitDevice(c10::kCUDA);
    *id = guard().getStreamFromGlobalPool(cuda(index)).id();
  });
}

int gradus_current_stream(int index, int64_t *id, char **error) {
  return guarded(error, [&] {
    at::globalContext().lazyInitDevice(c10::kCUDA);
    *id = guard().getStream(cuda(index)).id();
  });
}

// Makes a stream this thread's current one on its device; `*previous` is the one before.
int gradus_exchange_stream(int index, int64_t id, int64_t *previous, char **error) {
  return guarded(error, [&] { *previous = guard().exchangeStream(stream_of(index, id)).id(); });
}

// `*event` becomes a mark after all that the stream has been given; `gradus_event_free` releases it.
int gradus_event_record(int index, int64_t stream, bool has_time, c10::Event **event,
                        char **error) {
  return guarded(error, [&] {
    // libtorch's own default is an event without a time, which costs the device less.
    const auto flag =
        has_time ? c10::EventFlag::BACKEND_DEFAULT : c10::EventFlag::PYTORCH_DEFAULT;
    auto made = std::make_unique<c10::Event>(c10::kCUDA, flag);
    made->record(stream_of(index, stream));
    *event = made.release();
  });
}

// What the stream is given from now on begins after the event, without holding up this thread.
int gradus_event_block(const c10::Event *event, int index, int64_t stream, char **error) {
  return guarded(error, [&] { event->block(stream_of(index, stream)); });
}

int gradus_event_wait(const c10::Event *event, char **error) {
  return guarded(error, [&] { event->synchronize(); });
}

int gradus_event_elapsed(const c10::Event *from, const c10::Event *to, double *milliseconds,
                         char **error) {
  return guarded(error, [&] { *milliseconds = from->elapsedTime(*to); });
}

void gradus_event_free(c10::Event *event) { delete event; }

}  // extern "C"
