// What TensorRT does with the plugin library, without TensorRT: one line of output per step.
//
// usage: harness LIBRARY NAME COMBINE HEADS SCALE TYPE TABLES OFFSET SHAPE... where TYPE is half, bf16,
// float or int8, TABLES is int32 or int64, OFFSET is added to the addresses given to enqueue, and the
// eleven SHAPEs are written as 1x2x3.
#include <NvInferRuntime.h>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

using namespace nvinfer1;

struct Logger : ILogger {
    void log(Severity severity, char const* text) noexcept override {
        std::printf("log %d %s\n", static_cast<int>(severity), text);
    }
} gLogger;

struct Finder : ILoggerFinder {
    ILogger* findLogger() override { return &gLogger; }
} gFinder;

Dims dimsOf(std::string const& text) {
    Dims dims{};
    std::stringstream stream(text);
    for (std::string part; std::getline(stream, part, 'x');) {
        dims.d[dims.nbDims++] = std::atoll(part.c_str());
    }
    return dims;
}

bool isTable(int i) {
    return i == 3 || i == 4 || i == 10;
}

int run(IPluginV3* plugin, DataType type, DataType tables, long offset, char** shapes) {
    auto* build = static_cast<IPluginV3OneBuild*>(
        plugin->getCapabilityInterface(PluginCapabilityType::kBUILD));
    auto* core
        = static_cast<IPluginV3OneCore*>(plugin->getCapabilityInterface(PluginCapabilityType::kCORE));
    std::printf("core %s %s %s\n", core->getPluginName(), core->getPluginVersion(),
        core->getPluginNamespace());
    std::vector<DynamicPluginTensorDesc> descs(12);
    std::vector<PluginTensorDesc> plain(12);
    std::vector<DataType> types(11);
    for (int i = 0; i < 12; ++i) {
        descs[i].desc.dims = dimsOf(shapes[i == 11 ? 0 : i]);
        descs[i].desc.type = isTable(i) ? tables : type;
        descs[i].desc.format = TensorFormat::kLINEAR;
        plain[i] = descs[i].desc;
        if (i < 11) {
            types[i] = descs[i].desc.type;
        }
    }
    DataType out{};
    std::printf("types %d", build->getOutputDataTypes(&out, 1, types.data(), 11));
    std::printf(" %d\n", static_cast<int>(out));
    std::printf("formats");
    for (int i = 0; i < 12; ++i) {
        std::printf(" %d", build->supportsFormatCombination(i, descs.data(), 11, 1));
    }
    std::printf("\n");
    descs[0].desc.format = TensorFormat::kHWC8;
    std::printf("packed %d\n", build->supportsFormatCombination(0, descs.data(), 11, 1));
    descs[0].desc.format = TensorFormat::kLINEAR;
    DimsExprs inputs[11]{}, outputs[1]{};
    inputs[0].nbDims = 3;
    for (int i = 0; i < 3; ++i) {
        inputs[0].d[i] = reinterpret_cast<IDimensionExpr const*>(&inputs[0].d[i]);
    }
    auto& unused = *reinterpret_cast<IExprBuilder*>(inputs);
    int status = build->getOutputShapes(inputs, 11, nullptr, 0, outputs, 1, unused);
    bool const same = outputs[0].nbDims == 3 && outputs[0].d[0] == inputs[0].d[0]
        && outputs[0].d[1] == inputs[0].d[1] && outputs[0].d[2] == inputs[0].d[2];
    std::printf("shapes %d %d %d\n", status, same,
        build->getOutputShapes(inputs, 10, nullptr, 0, outputs, 1, unused));
    std::printf("tactics %d workspace %zu\n", build->getNbTactics(),
        build->getWorkspaceSize(descs.data(), 11, descs.data() + 11, 1));
    status = build->configurePlugin(descs.data(), 11, descs.data() + 11, 1);
    std::printf("configure %d\n", status);
    if (status != 0) {
        return 0;
    }
    std::unique_ptr<IPluginV3> copy(plugin->clone());
    auto* stored = static_cast<IPluginV3OneRuntime*>(
        copy->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
    std::unique_ptr<IPluginV3> attached(stored->attachToContext(nullptr));
    auto* runtime = static_cast<IPluginV3OneRuntime*>(
        attached->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
    void const* from[11];
    for (int i = 0; i < 11; ++i) {
        from[i] = reinterpret_cast<void const*>(0x10000L * (i + 1) + offset);
    }
    void* to[1] = {reinterpret_cast<void*>(0xf00000L)};
    auto* stream = reinterpret_cast<cudaStream_t>(0x77);
    std::printf("early %d\n", runtime->enqueue(plain.data(), &plain[11], from, to, nullptr, stream));
    std::printf("change %d\n", runtime->onShapeChange(plain.data(), 11, &plain[11], 1));
    std::printf("enqueue %d\n", runtime->enqueue(plain.data(), &plain[11], from, to, nullptr, stream));
    return 0;
}

int main(int count, char** words) {
    if (count != 20) {
        std::printf("usage: %d words\n", count);
        return 2;
    }
    void* library = dlopen(words[1], RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
        std::printf("dlopen %s\n", dlerror());
        return 1;
    }
    auto* setLoggerFinder = reinterpret_cast<void (*)(ILoggerFinder*)>(dlsym(library, "setLoggerFinder"));
    auto* getCreators = reinterpret_cast<IPluginCreatorInterface* const* (*)(int32_t&)>(
        dlsym(library, "getCreators"));
    setLoggerFinder(&gFinder);
    int32_t creators = 0;
    auto* const* all = getCreators(creators);
    IPluginCreatorV3One* creator = nullptr;
    for (int32_t i = 0; i < creators; ++i) {
        auto* one = static_cast<IPluginCreatorV3One*>(all[i]);
        std::printf("creator %s %s %s:", one->getPluginName(), one->getPluginVersion(),
            one->getPluginNamespace());
        for (int32_t k = 0; k < one->getFieldNames()->nbFields; ++k) {
            std::printf(" %s", one->getFieldNames()->fields[k].name);
        }
        std::printf("\n");
        creator = std::strcmp(one->getPluginName(), words[2]) == 0 ? one : creator;
    }
    std::map<std::string, DataType> const types{{"half", DataType::kHALF}, {"bf16", DataType::kBF16},
        {"float", DataType::kFLOAT}, {"int8", DataType::kINT8}, {"int32", DataType::kINT32},
        {"int64", DataType::kINT64}};
    int64_t const heads = std::atoll(words[4]);
    float const scale = std::strtof(words[5], nullptr);
    std::vector<PluginField> fields;
    if (std::strcmp(words[3], "-") != 0) {
        fields.emplace_back("combine", words[3], PluginFieldType::kCHAR,
            static_cast<int32_t>(std::strlen(words[3])));
    }
    fields.emplace_back("num_heads", &heads, PluginFieldType::kINT64, 1);
    fields.emplace_back("scale", &scale, PluginFieldType::kFLOAT32, 1);
    PluginFieldCollection collection{static_cast<int32_t>(fields.size()), fields.data()};
    std::unique_ptr<IPluginV3> plugin(
        creator->createPlugin("block0/attention", &collection, TensorRTPhase::kBUILD));
    std::printf("create %d\n", plugin != nullptr);
    if (plugin == nullptr) {
        return 0;
    }
    run(plugin.get(), types.at(words[6]), types.at(words[7]), std::atol(words[8]), words + 9);

    // What an engine stores, and what becomes of it: as it was, and as another library wrote it.
    auto* runtime = static_cast<IPluginV3OneRuntime*>(
        plugin->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
    PluginFieldCollection const* stored = runtime->getFieldsToSerialize();
    std::vector<PluginField> again(stored->fields, stored->fields + stored->nbFields);
    std::printf("stored");
    for (PluginField const& field : again) {
        std::printf(" %s", field.name);
    }
    std::printf("\n");
    PluginFieldCollection copy{static_cast<int32_t>(again.size()), again.data()};
    std::unique_ptr<IPluginV3> restored(
        creator->createPlugin("block0/attention", &copy, TensorRTPhase::kRUNTIME));
    std::printf("restore %d\n", restored != nullptr);
    if (restored != nullptr) {
        run(restored.get(), types.at(words[6]), types.at(words[7]), std::atol(words[8]), words + 9);
    }
    for (PluginField& field : again) {
        if (std::strcmp(field.name, "library") == 0) {
            field = PluginField("library", "1+000000000000", PluginFieldType::kCHAR, 15);
        }
    }
    std::unique_ptr<IPluginV3> foreign(
        creator->createPlugin("block0/attention", &copy, TensorRTPhase::kRUNTIME));
    std::printf("foreign %d\n", foreign != nullptr);
    return 0;
}
