// Owns CUDA graphs: work of a device that was recorded once and is given to it again as a whole.
// libtorch's class for them is declared in a header that needs CUDA's. Its functions are found by name
// in the CUDA half instead, which is there only when it was opened; `src/graph.rs` is the other side.

#include <dlfcn.h>

#include <cstdint>
#include <memory>
#include <utility>

#include <c10/core/Device.h>
#include <c10/core/DeviceGuard.h>

#include "abi.h"

namespace {

// `c10::MempoolId_t`; two zeros let libtorch choose a pool of the graph's own.
using Pool = std::pair<unsigned long long, unsigned long long>;

// `cudaStreamCaptureModeThreadLocal`: other threads may go on using the device meanwhile.
constexpr int OF_THIS_THREAD = 1;

// `at::cuda::CUDAGraph` of libtorch 2.11 has 104 bytes. The version is exact, see `Cargo.toml`.
constexpr size_t ROOM = 1024;

template <typename Function>
Function find(const char *symbol) {
  void *found = dlsym(RTLD_DEFAULT, symbol);
  TORCH_CHECK(found != nullptr, "no CUDA half of libtorch is loaded, or it lacks ", symbol);
  return reinterpret_cast<Function>(found);
}

class Graph {
 public:
  Graph() {
    // Before anything is made, so that whatever is made can be freed.
    destroy_ = find<void (*)(void *)>("_ZN2at4cuda9CUDAGraphD1Ev");
    find<void (*)(void *, bool)>("_ZN2at4cuda9CUDAGraphC1Eb")(room_, /*keep_graph=*/false);
  }
  Graph(const Graph &) = delete;
  Graph &operator=(const Graph &) = delete;
  ~Graph() { destroy_(room_); }

  void begin() {
    using Begin = void (*)(void *, Pool, int);
    constexpr auto SYMBOL = "_ZN2at4cuda9CUDAGraph13capture_beginESt4pairIyyE21cudaStreamCaptureMode";
    find<Begin>(SYMBOL)(room_, Pool{0, 0}, OF_THIS_THREAD);
  }
  void end() { find<void (*)(void *)>("_ZN2at4cuda9CUDAGraph11capture_endEv")(room_); }
  void replay() { find<void (*)(void *)>("_ZN2at4cuda9CUDAGraph6replayEv")(room_); }

 private:
  alignas(16) unsigned char room_[ROOM] = {};
  void (*destroy_)(void *);
};

}  // namespace

extern "C" {

// Records what this thread gives the device's current stream from now on, which must not be the
// default one. `gradus_graph_free` releases `*graph`, after `gradus_graph_end`.
int gradus_graph_begin(int index, Graph **graph, char **error) {
  return guarded(error, [&] {
    // The stream is that of the thread's current device.
    const c10::DeviceGuard on(c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(index)));
    auto made = std::make_unique<Graph>();
    made->begin();
    *graph = made.release();
  });
}

int gradus_graph_end(Graph *graph, int index, char **error) {
  return guarded(error, [&] {
    const c10::DeviceGuard on(c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(index)));
    graph->end();
  });
}

// Gives this thread's current stream all that was recorded.
int gradus_graph_replay(Graph *graph, char **error) {
  return guarded(error, [&] { graph->replay(); });
}

void gradus_graph_free(Graph *graph) { delete graph; }

}  // extern "C"
