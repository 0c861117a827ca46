#include "cuda_driver.hpp"

#include <cstdlib>
#include <dlfcn.h>

namespace prunus {
namespace {

template <typename Function>
void find(void* library, char const* name, Function& function, std::string& problem) {
    function = reinterpret_cast<Function>(dlsym(library, name));
    if (function == nullptr && problem.empty()) {
        problem = std::string("the NVIDIA driver lacks ") + name;
    }
}

CudaDriver open() {
    CudaDriver driver;
    char const* chosen = std::getenv("PRUNUS_CUDA_LIBRARY");
    void* library = dlopen(chosen != nullptr ? chosen : "libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
        char const* reason = dlerror();
        driver.problem = std::string("the NVIDIA driver cannot be opened: ")
            + (reason != nullptr ? reason : "no reason given");
        return driver;
    }
    find(library, "cuGetErrorString", driver.getErrorString, driver.problem);
    find(library, "cuCtxGetCurrent", driver.ctxGetCurrent, driver.problem);
    find(library, "cuCtxGetDevice", driver.ctxGetDevice, driver.problem);
    find(library, "cuDeviceGetAttribute", driver.deviceGetAttribute, driver.problem);
    find(library, "cuModuleLoadData", driver.moduleLoadData, driver.problem);
    find(library, "cuModuleUnload", driver.moduleUnload, driver.problem);
    find(library, "cuModuleGetFunction", driver.moduleGetFunction, driver.problem);
    find(library, "cuFuncSetAttribute", driver.funcSetAttribute, driver.problem);
    find(library, "cuLaunchKernel", driver.launchKernel, driver.problem);
    return driver;
}

}  // namespace

CudaDriver const& CudaDriver::instance() {
    static CudaDriver const driver = open();
    return driver;
}

std::string CudaDriver::explain(char const* call, int status) const {
    char const* words = nullptr;
    if (getErrorString != nullptr) {
        getErrorString(status, &words);
    }
    return std::string("CUDA refused ") + call + ": " + (words != nullptr ? words : "unknown error")
        + " (code " + std::to_string(status) + ")";
}

}  // namespace prunus
