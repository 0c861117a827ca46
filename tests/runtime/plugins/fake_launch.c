/* A CUDA driver that launches nothing: it says what it was asked for, one line per call on stdout.
   FAKE_CAPABILITY is the GPU's compute capability times ten; FAKE_REFUSES names a call that fails. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int refuses(char const* name) {
    char const* chosen = getenv("FAKE_REFUSES");
    return chosen != NULL && strcmp(chosen, name) == 0 ? 218 : 0;
}

int cuGetErrorString(int status, char const** text) {
    *text = status == 218 ? "invalid PTX" : "unknown";
    return 0;
}
int cuCtxGetCurrent(void** context) {
    *context = (void*)0x1000;
    return 0;
}
int cuCtxGetDevice(int* device) {
    *device = 3;
    return refuses("cuCtxGetDevice");
}
int cuDeviceGetAttribute(int* value, int attribute, int device) {
    int capability = atoi(getenv("FAKE_CAPABILITY"));
    *value = device != 3 ? -1 : attribute == 75 ? capability / 10 : capability % 10;
    return 0;
}
int cuModuleLoadData(void** module, void const* image) {
    *module = (void*)image;
    printf("load %s\n", memcmp(image, "\177ELF", 4) == 0 ? "ELF" : "rubbish");
    return refuses("cuModuleLoadData");
}
int cuModuleUnload(void* module) {
    printf("unload %s\n", memcmp(module, "\177ELF", 4) == 0 ? "ELF" : "rubbish");
    return 0;
}
int cuModuleGetFunction(void** function, void* module, char const* name) {
    *function = module;
    printf("function %s\n", name);
    return 0;
}
int cuFuncSetAttribute(void* function, int attribute, int value) {
    (void)function;
    printf("attribute %d %d\n", attribute, value);
    return 0;
}
int cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
    unsigned bz, unsigned shared, void* stream, void** arguments, void** extra) {
    (void)function;
    (void)extra;
    printf("launch %u %u %u %u %u %u %u %p", gx, gy, gz, bx, by, bz, shared, stream);
    for (int i = 0; i < 11; ++i) {
        printf(" %p", *(void**)arguments[i]);
    }
    printf(" %.9g", *(float*)arguments[11]);
    for (int i = 12; i < 37; ++i) {
        printf(" %d", *(int*)arguments[i]);
    }
    printf(" %p %p\n", *(void**)arguments[37], *(void**)arguments[38]);
    return refuses("cuLaunchKernel");
}
