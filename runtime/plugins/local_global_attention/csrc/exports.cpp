// What the library shows to the outside; everything else stays hidden.
#include "creator.hpp"
#include "kernels.hpp"
#include "log.hpp"
#include "plugin.hpp"

#include <string>

#define PRUNUS_EXPORT extern "C" __attribute__((visibility("default")))

// Called by TensorRT's plugin registry when it loads the library.
PRUNUS_EXPORT void setLoggerFinder(nvinfer1::ILoggerFinder* finder) {
    prunus::setFinder(finder);
}

PRUNUS_EXPORT nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count) {
    static prunus::Creator made[] = {prunus::Creator(prunus::kNames[0]),
        prunus::Creator(prunus::kNames[1]), prunus::Creator(prunus::kNames[2]),
        prunus::Creator(prunus::kNames[3])};
    static nvinfer1::IPluginCreatorInterface* const creators[] = {&made[0], &made[1], &made[2], &made[3]};
    count = 4;
    return creators;
}

// What the library is: a mark that is found without loading it, and JSON.
PRUNUS_EXPORT char const* prunus_plugin_describe() {
    return prunus::kDescription;
}

// Position in the library's table of the kernel for a problem, or -1. `type`: 0 fp16, 1 bf16, 2 fp32.
PRUNUS_EXPORT int32_t prunus_plugin_choose(int32_t device, int32_t type, int64_t queries,
    int64_t keys, int64_t headDim, int32_t aligned) {
    std::string problem;
    prunus::KernelImage const* image = prunus::choose(device, static_cast<prunus::Type>(type),
        queries, keys, headDim, aligned != 0, problem);
    return image != nullptr ? static_cast<int32_t>(image - prunus::kImages) : -1;
}

// The kernel's integer arguments for shapes given as ranks and sizes, one after the other. Returns
// null, or what is wrong with the shapes (valid until the thread's next call).
PRUNUS_EXPORT char const* prunus_plugin_integers(int32_t const* ranks, int64_t const* sizes,
    int64_t heads, int32_t combine, int32_t indexWords, int32_t* integers) {
    thread_local std::string problem;
    std::array<prunus::Shape, prunus::kInputs> shapes;
    for (int32_t i = 0; i < prunus::kInputs; ++i) {
        shapes[i].assign(sizes, sizes + ranks[i]);
        sizes += ranks[i];
    }
    prunus::Geometry geometry;
    problem = geometry.set(shapes, heads, static_cast<prunus::Combine>(combine));
    if (!problem.empty()) {
        return problem.c_str();
    }
    auto const values = geometry.integers(indexWords);
    for (int32_t i = 0; i < prunus::kIntegers; ++i) {
        integers[i] = values[i];
    }
    return nullptr;
}
