/* A CUDA driver that works on ordinary memory: the ABI that runtime/session/tensorrt/cuda.py calls.
 *
 * Work on a stream runs at once, or is recorded while a capture is on and replayed by a launch.
 * Compile with -DWITH_CUDA_H and NVIDIA's cuda.h on the include path to let the compiler compare
 * every prototype with the real one.
 */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#ifdef WITH_CUDA_H
#include <cuda.h>
#else
typedef int CUresult;
typedef int CUdevice;
typedef int CUdevice_attribute;
typedef int CUstreamCaptureMode;
typedef unsigned long long CUdeviceptr;
typedef unsigned long long cuuint64_t;
typedef struct CUctx_st *CUcontext;
typedef struct CUstream_st *CUstream;
typedef struct CUgraph_st *CUgraph;
typedef struct CUgraphExec_st *CUgraphExec;
#endif

typedef void (*Work)(int);
typedef struct { void *to; const void *from; size_t size; Work work; int id; } Step;
enum { MOST = 64 };
struct CUgraph_st { Step steps[MOST]; int count; };
struct CUgraphExec_st { struct CUgraph_st graph; };

static struct CUgraph_st *recording;
static char failing[64];
static int live, launches, devices = 1, major_ = 8, minor_ = 6;
static int current_context;

#define ENTER(name) if (!strcmp(failing, name)) return 999
#define NEED_CONTEXT if (!current_context) return 201

/* Controls of the tests. */
void fake_reset(void) { failing[0] = 0; live = launches = current_context = 0; devices = 1; major_ = 8; minor_ = 6; recording = 0; }
void fake_fail(const char *name) { strncpy(failing, name, sizeof failing - 1); }
void fake_gpu(int count, int major, int minor) { devices = count; major_ = major; minor_ = minor; }
int fake_live(void) { return live; }
int fake_launches(void) { return launches; }

static CUresult queue(Step step) {
    if (recording) {
        if (recording->count == MOST) return 2;
        recording->steps[recording->count++] = step;
        return 0;
    }
    if (step.work) step.work(step.id); else memcpy(step.to, step.from, step.size);
    return 0;
}
int fake_enqueue(Work work, int id) { Step step = {0, 0, 0, work, id}; return queue(step); }

CUresult cuInit(unsigned int flags) { ENTER("cuInit"); return flags ? 1 : 0; }
CUresult cuDriverGetVersion(int *version) { *version = 13020; return 0; }
CUresult cuGetErrorString(CUresult error, const char **text) { *text = error == 999 ? "planted failure" : "other failure"; return 0; }
CUresult cuDeviceGetCount(int *count) { *count = devices; return 0; }
CUresult cuDeviceGet(CUdevice *device, int ordinal) { *device = ordinal; return ordinal < devices ? 0 : 101; }
CUresult cuDeviceGetName(char *name, int length, CUdevice device) { (void)device; strncpy(name, "Fake GPU", (size_t)length); return 0; }
CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device) {
    (void)device;
    *value = attribute == 75 ? major_ : attribute == 76 ? minor_ : -1;
    return 0;
}
CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) { (void)device; *context = (CUcontext)&live; live++; return 0; }
CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) { (void)device; live--; current_context = 0; return 0; }
CUresult cuCtxSetCurrent(CUcontext context) { current_context = context == (CUcontext)&live; return context ? 0 : 201; }

CUresult cuMemAlloc_v2(CUdeviceptr *address, size_t size) {
    ENTER("cuMemAlloc_v2"); NEED_CONTEXT;
    if (recording) return 900;
    *address = (CUdeviceptr)(size_t)calloc(1, size); live++;
    return 0;
}
CUresult cuMemFree_v2(CUdeviceptr address) { NEED_CONTEXT; free((void *)(size_t)address); live--; return 0; }
CUresult cuMemAllocHost_v2(void **address, size_t size) { ENTER("cuMemAllocHost_v2"); NEED_CONTEXT; *address = calloc(1, size); live++; return 0; }
CUresult cuMemFreeHost(void *address) { NEED_CONTEXT; free(address); live--; return 0; }
CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t size, CUstream stream) {
    Step step = {(void *)(size_t)to, from, size, 0, 0};
    ENTER("cuMemcpyHtoDAsync_v2"); NEED_CONTEXT; (void)stream;
    return queue(step);
}
CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t size, CUstream stream) {
    Step step = {to, (const void *)(size_t)from, size, 0, 0};
    ENTER("cuMemcpyDtoHAsync_v2"); NEED_CONTEXT; (void)stream;
    return queue(step);
}
CUresult cuStreamCreate(CUstream *stream, unsigned int flags) { ENTER("cuStreamCreate"); NEED_CONTEXT; *stream = malloc(8); live++; return flags == 1 ? 0 : 1; }
CUresult cuStreamDestroy_v2(CUstream stream) { NEED_CONTEXT; free(stream); live--; return 0; }
CUresult cuStreamSynchronize(CUstream stream) { ENTER("cuStreamSynchronize"); NEED_CONTEXT; (void)stream; return recording ? 900 : 0; }
CUresult cuStreamBeginCapture_v2(CUstream stream, CUstreamCaptureMode mode) {
    ENTER("cuStreamBeginCapture_v2"); NEED_CONTEXT; (void)stream;
    if (recording || (int)mode != 1) return 1;
    recording = calloc(1, sizeof *recording); live++;
    return 0;
}
CUresult cuStreamEndCapture(CUstream stream, CUgraph *graph) {
    NEED_CONTEXT; (void)stream;
    if (!recording) return 1;
    *graph = recording; recording = 0;
    return 0;
}
CUresult cuGraphInstantiateWithFlags(CUgraphExec *executable, CUgraph graph, unsigned long long flags) {
    ENTER("cuGraphInstantiateWithFlags"); NEED_CONTEXT;
    *executable = malloc(sizeof **executable); (*executable)->graph = *graph; live++;
    return flags ? 1 : 0;
}
CUresult cuGraphLaunch(CUgraphExec executable, CUstream stream) {
    ENTER("cuGraphLaunch"); NEED_CONTEXT; (void)stream;
    launches++;
    for (int k = 0; k < executable->graph.count; k++) queue(executable->graph.steps[k]);
    return 0;
}
CUresult cuGraphExecDestroy(CUgraphExec executable) { NEED_CONTEXT; free(executable); live--; return 0; }
CUresult cuGraphDestroy(CUgraph graph) { NEED_CONTEXT; free(graph); live--; return 0; }
