// The compiled kernels inside this library: which one serves a problem, and how it is launched.
#pragma once

#include "geometry.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace prunus {

enum class Type : int32_t { kHalf, kBFloat16, kFloat };
constexpr char const* kTypeNames[] = {"fp16", "bf16", "fp32"};

// One compiled variant; the table is generated from tiles.py and ordered from special to general.
struct KernelImage {
    int32_t architecture;  // compute capability times ten
    Type type;
    int32_t rows, keys, dim, maxQueries, minKeys;
    bool aligned;
    int32_t threads, sharedBytes;
    unsigned char const* data;
    size_t size;
};

extern KernelImage const kImages[];
extern int32_t const kImageCount;
extern char const* const kFunctionName;
extern char const* const kIdentity;     // plugin version and hash of all that it is made from
extern char const* const kDescription;  // the same and more, as JSON

// Whether code for `image` runs on `device`. Code for one minor version runs on later minors of the
// same major, except between Tegra (8.7) and the others, and except from 9.0 on, where the kernels
// use instructions of one architecture only.
bool runsOn(int32_t image, int32_t device);

// The image for a problem on a device, or null with the reason in `problem`.
KernelImage const* choose(int32_t device, Type type, int64_t queries, int64_t keys, int64_t headDim,
    bool aligned, std::string& problem);

// A kernel inside the current CUDA context; unloaded when the last user lets go.
class LoadedKernel {
public:
    static std::shared_ptr<LoadedKernel> load(KernelImage const& image, std::string& problem);
    ~LoadedKernel();
    LoadedKernel(LoadedKernel const&) = delete;
    LoadedKernel& operator=(LoadedKernel const&) = delete;

    // Queues one call. `pointers` in the order of the kernel: the inputs up to gate, then y.
    std::string launch(void* stream, void const* const* pointers, float scale, Geometry const& g,
        int32_t indexWords) const;

private:
    LoadedKernel(KernelImage const& image) : image_(image) {}
    KernelImage const& image_;
    void* context_ = nullptr;
    void* module_ = nullptr;
    void* function_ = nullptr;
};

// Compute capability times ten of the current context's device; 0 and `problem` if there is none.
int32_t currentDevice(std::string& problem);

}  // namespace prunus
