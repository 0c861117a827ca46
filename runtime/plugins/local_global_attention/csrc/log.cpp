#include "log.hpp"

#include <atomic>
#include <cstdint>
#include <dlfcn.h>
#include <initializer_list>
#include <iostream>

namespace prunus {

// Loggers and their finders became versioned interfaces in TensorRT 11 and in RTX by 1.7, which moved
// their methods in the virtual table. One library serves all, so it must not rely on the headers that
// it was compiled with. (Not in the unnamed namespace: the compiler would conclude that nobody implements
// them.)
struct VersionedLogger : nvinfer1::IVersionedInterface {
    virtual void log(int32_t severity, char const* text) noexcept = 0;
};

struct VersionedFinder : nvinfer1::IVersionedInterface {
    virtual VersionedLogger* findLogger() = 0;
};

struct PlainLogger {
    virtual void log(int32_t severity, char const* text) noexcept = 0;

protected:
    ~PlainLogger() = default;
};

struct PlainFinder {
    virtual PlainLogger* findLogger() = 0;

protected:
    ~PlainFinder() = default;
};

namespace {

std::atomic<void*> gFinder{nullptr};

// The TensorRT libraries inside this process, by what their loggers look like.
struct Loaded {
    bool versioned = false;
    bool plain = false;
};

Loaded loaded() {
    Loaded found;
    for (char const* name : {"libnvinfer.so.10", "libnvinfer.so.11", "libtensorrt_rtx.so.1"}) {
        void* library = dlopen(name, RTLD_LAZY | RTLD_NOLOAD);
        if (library == nullptr) {
            continue;
        }
        auto* major = reinterpret_cast<int32_t (*)()>(dlsym(library, "getInferLibMajorVersion"));
        auto* minor = reinterpret_cast<int32_t (*)()>(dlsym(library, "getInferLibMinorVersion"));
        int32_t const version
            = major != nullptr && minor != nullptr ? 100 * major() + minor() : 1000;
        bool const rtx = version < 500;
        bool const versioned = rtx ? version >= 107 : version >= 1100;
        (versioned ? found.versioned : found.plain) = true;
        dlclose(library);
    }
    return found;
}

bool isVersioned(void* finder) {
    Loaded const found = loaded();
    if (found.versioned && found.plain) {
        // Two in one process. The first method of a versioned interface returns its language, 0 or 1;
        // of a plain finder, a logger.
        auto const first = reinterpret_cast<uintptr_t>(static_cast<PlainFinder*>(finder)->findLogger());
        return static_cast<uint32_t>(first) <= 1;
    }
    return found.versioned;
}

// Returns whether there was a logger to give it to.
bool give(void* finder, char const* line) {
    constexpr auto kError = static_cast<int32_t>(nvinfer1::ILogger::Severity::kERROR);
    if (finder == nullptr) {
        return false;
    }
    if (isVersioned(finder)) {
        VersionedLogger* logger = static_cast<VersionedFinder*>(finder)->findLogger();
        if (logger != nullptr) {
            logger->log(kError, line);
        }
        return logger != nullptr;
    }
    PlainLogger* logger = static_cast<PlainFinder*>(finder)->findLogger();
    if (logger != nullptr) {
        logger->log(kError, line);
    }
    return logger != nullptr;
}

}  // namespace

void setFinder(nvinfer1::ILoggerFinder* finder) {
    gFinder = finder;
}

void logError(std::string const& layer, std::string const& text) {
    std::string const line
        = "LocalGlobalAttention" + (layer.empty() ? "" : " '" + layer + "'") + ": " + text;
    if (!give(gFinder, line.c_str())) {
        std::cerr << line << '\n';
    }
}

}  // namespace prunus
