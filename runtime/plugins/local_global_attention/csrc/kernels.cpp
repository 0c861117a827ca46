#include "kernels.hpp"

#include "cuda_driver.hpp"

#include <array>
#include <set>

namespace prunus {
namespace {

constexpr int kMajor = 75, kMinor = 76;  // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
constexpr int kMaxDynamicShared = 8;     // CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
constexpr int32_t kDefaultShared = 48 << 10;
constexpr int32_t kTegra = 87;
constexpr size_t kPointers = kGate + 2;  // inputs up to gate, and y

std::string dotted(int32_t architecture) {
    return std::to_string(architecture / 10) + "." + std::to_string(architecture % 10);
}

std::string architectures() {
    std::set<int32_t> known;
    for (int32_t i = 0; i < kImageCount; ++i) {
        known.insert(kImages[i].architecture);
    }
    std::string out;
    for (int32_t architecture : known) {
        out += (out.empty() ? "" : ", ") + dotted(architecture);
    }
    return out;
}

}  // namespace

bool runsOn(int32_t image, int32_t device) {
    if (image == device) {
        return true;
    }
    bool const tegra = image == kTegra || device == kTegra;
    return image < 90 && !tegra && image / 10 == device / 10 && image < device;
}

KernelImage const* choose(int32_t device, Type type, int64_t queries, int64_t keys, int64_t headDim,
    bool aligned, std::string& problem) {
    KernelImage const* best = nullptr;
    bool supported = false;
    for (int32_t i = 0; i < kImageCount; ++i) {
        KernelImage const& image = kImages[i];
        if (!runsOn(image.architecture, device)) {
            continue;
        }
        supported = true;
        bool const meant
            = (image.maxQueries == 0 || queries <= image.maxQueries) && keys >= image.minKeys;
        bool const fits = image.type == type && headDim <= image.dim && meant
            && (aligned || !image.aligned);
        // The first that fits, of the newest architecture that the device can run.
        if (fits && (best == nullptr || image.architecture > best->architecture)) {
            best = &image;
        }
    }
    if (!supported) {
        problem = "this library holds kernels for compute capability " + architectures()
            + ", the GPU has " + dotted(device)
            + "; build the engine with --plugin off, or the library with --arch "
            + std::to_string(device);
    } else if (best == nullptr) {
        problem = std::string("no kernel for ") + kTypeNames[static_cast<int32_t>(type)]
            + " and a head dimension of " + std::to_string(headDim) + " on compute capability "
            + dotted(device);
    }
    return best;
}

int32_t currentDevice(std::string& problem) {
    CudaDriver const& cuda = CudaDriver::instance();
    problem = cuda.problem;
    if (!problem.empty()) {
        return 0;
    }
    int device = 0, major = 0, minor = 0;
    int status = cuda.ctxGetDevice(&device);
    if (status != 0) {
        problem = cuda.explain("cuCtxGetDevice", status);
        return 0;
    }
    status = cuda.deviceGetAttribute(&major, kMajor, device);
    if (status == 0) {
        status = cuda.deviceGetAttribute(&minor, kMinor, device);
    }
    if (status != 0) {
        problem = cuda.explain("cuDeviceGetAttribute", status);
        return 0;
    }
    return major * 10 + minor;
}

std::shared_ptr<LoadedKernel> LoadedKernel::load(KernelImage const& image, std::string& problem) {
    CudaDriver const& cuda = CudaDriver::instance();
    std::shared_ptr<LoadedKernel> kernel(new LoadedKernel(image));
    char const* call = "cuCtxGetCurrent";
    int status = cuda.ctxGetCurrent(&kernel->context_);
    if (status == 0) {
        call = "cuModuleLoadData";
        status = cuda.moduleLoadData(&kernel->module_, image.data);
    }
    if (status == 0) {
        call = "cuModuleGetFunction";
        status = cuda.moduleGetFunction(&kernel->function_, kernel->module_, kFunctionName);
    }
    if (status == 0 && image.sharedBytes > kDefaultShared) {
        call = "cuFuncSetAttribute";
        status = cuda.funcSetAttribute(kernel->function_, kMaxDynamicShared, image.sharedBytes);
    }
    if (status != 0) {
        problem = cuda.explain(call, status);
        return nullptr;
    }
    return kernel;
}

LoadedKernel::~LoadedKernel() {
    CudaDriver const& cuda = CudaDriver::instance();
    void* current = nullptr;
    // Another context, or none: the module went, or will go, with the one it lives in.
    bool const same = module_ != nullptr && cuda.ctxGetCurrent(&current) == 0;
    if (same && current == context_) {
        cuda.moduleUnload(module_);
    }
}

std::string LoadedKernel::launch(void* stream, void const* const* pointers, float scale,
    Geometry const& g, int32_t indexWords) const {
    CudaDriver const& cuda = CudaDriver::instance();
    std::array<int32_t, kIntegers> integers = g.integers(indexWords);
    std::array<void const*, kPointers> addresses{};
    void const* scratch[2] = {nullptr, nullptr};  // two spaces that this kernel makes no use of
    std::array<void*, kPointers + 1 + kIntegers + 2> arguments{};
    size_t at = 0;
    for (size_t i = 0; i < kPointers; ++i) {
        addresses[i] = pointers[i];
        arguments[at++] = &addresses[i];
    }
    arguments[at++] = &scale;
    for (int32_t& value : integers) {
        arguments[at++] = &value;
    }
    arguments[at++] = &scratch[0];
    arguments[at++] = &scratch[1];
    int64_t const tiles = (g.queries + image_.rows - 1) / image_.rows;
    int const status = cuda.launchKernel(function_,
        static_cast<unsigned>(g.windows * tiles * g.heads), static_cast<unsigned>(g.batch), 1U,
        static_cast<unsigned>(image_.threads), 1U, 1U, static_cast<unsigned>(image_.sharedBytes),
        stream, arguments.data(), nullptr);
    return status == 0 ? std::string() : cuda.explain("cuLaunchKernel", status);
}

}  // namespace prunus
