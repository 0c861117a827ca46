// The few calls of the CUDA driver that launching needs, opened at run time.
//
// Neither the toolkit nor its headers are needed for them, and the library loads on a machine without
// a driver, where engines are built but not run. Prototypes: CUDA Driver API,
// https://docs.nvidia.com/cuda/cuda-driver-api.
#pragma once

#include <cstddef>
#include <string>

namespace prunus {

struct CudaDriver {
    int (*getErrorString)(int, char const**) = nullptr;
    int (*ctxGetCurrent)(void**) = nullptr;
    int (*ctxGetDevice)(int*) = nullptr;
    int (*deviceGetAttribute)(int*, int, int) = nullptr;
    int (*moduleLoadData)(void**, void const*) = nullptr;
    int (*moduleUnload)(void*) = nullptr;
    int (*moduleGetFunction)(void**, void*, char const*) = nullptr;
    int (*funcSetAttribute)(void*, int, int) = nullptr;
    int (*launchKernel)(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
        void*, void**, void**) = nullptr;
    std::string problem;  // why the driver cannot be used; empty when it can

    // The driver of this process; opened once. PRUNUS_CUDA_LIBRARY names another file, for tests.
    static CudaDriver const& instance();

    // The driver's own words for a status.
    std::string explain(char const* call, int status) const;
};

}  // namespace prunus
