/* A CUDA driver for machines without one: device memory is host memory, and a stream is a queue.

What is put on a stream happens when somebody waits for it, and not before: a copy whose host buffer is given back too
early, or a result read without waiting, shows. Mistakes are written down, a line each, for `fake_mistakes` to tell.
Only what a runner calls is here. The one kernel is `fake_scale`: each float of one place times a factor to another. */

#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <dlfcn.h>

#define MOST 4096
typedef int CUresult;
enum { OK = 0, INVALID = 1, NO_MEMORY = 2, INVALID_CONTEXT = 201, INVALID_HANDLE = 400, NOT_FOUND = 500, CAPTURE = 900 };
enum { MEMORY, HOST, STREAM, EVENT, GRAPH, EXEC, KINDS };
static const char *kinds[] = {"device memory", "pinned memory", "stream", "event", "graph", "executable graph"};

typedef struct { char *start; size_t size; int kind; } Thing;
typedef struct { int op; void *stream, *to, *from; size_t count; float factor; } Step; /* op: 0 copy, 1 scale, 2 event */
typedef struct { Step steps[64]; int count; } Graph;
typedef struct { float at; } Event;
typedef struct { Graph *capturing; int broken; } Stream;

static Thing things[MOST];
static int used;
static Step queue[MOST];
static int queued;
static char mistakes[1 << 16];
static char order[1 << 20];
static float clock_ms;
static int retained, depth, limit = -1;
static __thread void *stack[64];
static __thread int top;

static void mistake(const char *what, const char *which) {
    size_t room = sizeof mistakes - strlen(mistakes);
    snprintf(mistakes + strlen(mistakes), room, "%s: %s\n", which, what);
}
static void note(const char *what) {
    if (strlen(order) + strlen(what) + 2 < sizeof order) { strcat(order, what); strcat(order, " "); }
}
static void *keep(void *start, size_t size, int kind) {
    things[used++] = (Thing){start, size, kind};
    return start;
}
static Thing *find(const void *at, size_t size, int kind) {
    for (int i = 0; i < used; i++)
        if (things[i].start && things[i].kind == kind && (char *)at >= things[i].start
            && (char *)at + size <= things[i].start + things[i].size) return &things[i];
    return NULL;
}
static CUresult drop(void *start, int kind, const char *which) {
    Thing *thing = find(start, 1, kind);
    if (!thing || thing->start != (char *)start) { mistake("given back twice, or never had", which); return INVALID; }
    for (int i = 0; i < queued; i++) {
        char *ends[] = {queue[i].to, queue[i].from, queue[i].stream};
        for (int end = 0; end < 3; end++)
            if (ends[end] >= thing->start && ends[end] < thing->start + thing->size) mistake("given back while in use", which);
    }
    memset(thing->start, 0x5a, thing->size);
    free(thing->start);
    thing->start = NULL;
    return OK;
}
static int here(const char *which) {
    if (top > 0) return 1;
    mistake("no context is current", which);
    return 0;
}
static void run(Step *step) {
    clock_ms += 1;
    if (step->op == 2) { ((Event *)step->to)->at = clock_ms; return; }
    size_t size = step->op ? step->count * sizeof(float) : step->count;
    void *ends[] = {step->to, step->from};
    for (int end = 0; end < 2; end++)
        if (size && !find(ends[end], size, MEMORY) && !find(ends[end], size, HOST)) {
            mistake("reads or writes what is not there any more, or too small", step->op ? "kernel" : "copy");
            return;
        }
    if (step->op == 0) memcpy(step->to, step->from, size);
    else for (size_t i = 0; i < step->count; i++) ((float *)step->to)[i] = step->factor * ((float *)step->from)[i];
}
static void drain(void *stream) {
    int left = 0;
    for (int i = 0; i < queued; i++)
        if (queue[i].stream == stream) run(&queue[i]); else queue[left++] = queue[i];
    queued = left;
}
static CUresult put(Step step, const char *which) {
    note(which);
    if (!here(which)) return INVALID_CONTEXT;
    Thing *thing = find(step.stream, 1, STREAM);
    if (!thing) { mistake("not on a stream of its own", which); return INVALID_HANDLE; }
    Stream *stream = step.stream;
    if (stream->capturing) {
        if (step.op == 0) { mistake("a copy of the runner's was captured", which); }
        stream->capturing->steps[stream->capturing->count++] = step;
    } else queue[queued++] = step;
    return OK;
}
static CUresult forbidden_in_capture(const char *which) {
    for (int i = 0; i < used; i++)
        if (things[i].start && things[i].kind == STREAM && ((Stream *)things[i].start)->capturing) {
            mistake("not allowed while a stream is captured", which);
            ((Stream *)things[i].start)->broken = 1;
            return CAPTURE;
        }
    return OK;
}

/* For tests. */
const char *fake_mistakes(void) { return mistakes; }
const char *fake_forgive(void) { static char old[sizeof mistakes]; strcpy(old, mistakes); *mistakes = 0; return old; }
const char *fake_order(void) { return order; }
void fake_limit(int allocations) { limit = allocations; }
int fake_alive(int kind) {
    int count = 0;
    for (int i = 0; i < used; i++) count += things[i].start && things[i].kind == kind;
    return count;
}
const char *fake_kind(int kind) { return kind < KINDS ? kinds[kind] : NULL; }
int fake_contexts(void) { return retained; }
int fake_depth(void) { return top; }
int fake_scale(void *stream, void *to, void *from, size_t count, float factor) {
    return put((Step){1, stream, to, from, count, factor}, "kernel");
}

CUresult cuInit(unsigned flags) { return OK; }
CUresult cuDriverGetVersion(int *version) { *version = 13000; return OK; }
CUresult cuDeviceGetCount(int *count) { *count = 1; return OK; }
CUresult cuDeviceGet(int *device, int number) { *device = number; return number ? INVALID : OK; }
CUresult cuDeviceGetName(char *name, int size, int device) { snprintf(name, size, "Pretend GPU"); return OK; }
CUresult cuDeviceGetAttribute(int *value, int attribute, int device) { *value = attribute == 75 ? 8 : 6; return OK; }
CUresult cuGetErrorString(CUresult status, const char **text) {
    *text = status == NO_MEMORY ? "out of memory" : status == CAPTURE ? "operation not permitted when stream is capturing"
            : status == INVALID_CONTEXT ? "invalid device context" : "invalid argument";
    return OK;
}
CUresult cuGetErrorName(CUresult status, const char **text) {
    *text = status == NO_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : status == CAPTURE ? "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"
            : status == INVALID_CONTEXT ? "CUDA_ERROR_INVALID_CONTEXT" : "CUDA_ERROR_INVALID_VALUE";
    return OK;
}
CUresult cuDevicePrimaryCtxRetain(void **context, int device) { retained++; *context = &retained; return OK; }
CUresult cuDevicePrimaryCtxRelease_v2(int device) {
    if (retained-- <= 0) mistake("released more often than retained", "context");
    if (!retained) for (int kind = 0; kind < KINDS; kind++) if (fake_alive(kind)) mistake("outlived the context", kinds[kind]);
    return OK;
}
CUresult cuCtxPushCurrent_v2(void *context) {
    if (!retained || context != &retained) { mistake("not a context that is there", "push"); return INVALID_CONTEXT; }
    stack[top++] = context;
    return OK;
}
CUresult cuCtxPopCurrent_v2(void **context) {
    if (!top) { mistake("nothing to pop", "pop"); return INVALID_CONTEXT; }
    void *gone = stack[--top];
    if (context) *context = gone;
    return OK;
}
CUresult cuCtxDetach(void *context) { return OK; }
CUresult cuCtxGetCurrent(void **context) { *context = top ? stack[top - 1] : NULL; return OK; }
CUresult cuCtxGetDevice(int *device) { *device = 0; return top ? OK : INVALID_CONTEXT; }

CUresult cuMemAlloc_v2(void **address, size_t size) {
    note("alloc");
    if (!here("alloc")) return INVALID_CONTEXT;
    if (forbidden_in_capture("alloc")) return CAPTURE;
    if (!size) { mistake("of no bytes", "alloc"); return INVALID; }
    if (limit == 0) return NO_MEMORY;
    if (limit > 0) limit--;
    *address = memset(keep(malloc(size), size, MEMORY), 0xff, size);
    return OK;
}
CUresult cuMemFree_v2(void *address) { note("free"); return here("free") ? drop(address, MEMORY, "device memory") : INVALID_CONTEXT; }
CUresult cuMemHostAlloc(void **address, size_t size, unsigned flags) {
    note("pin");
    if (!here("pin")) return INVALID_CONTEXT;
    *address = memset(keep(malloc(size), size, HOST), 0xff, size);
    return OK;
}
CUresult cuMemFreeHost(void *address) { note("unpin"); return here("unpin") ? drop(address, HOST, "pinned memory") : INVALID_CONTEXT; }
CUresult cuMemcpyHtoDAsync_v2(void *to, void *from, size_t size, void *stream) {
    if (!find(from, size, HOST)) mistake("from memory that is not pinned", "upload");
    return put((Step){0, stream, to, from, size}, "upload");
}
CUresult cuMemcpyDtoHAsync_v2(void *to, void *from, size_t size, void *stream) {
    if (!find(to, size, HOST)) mistake("to memory that is not pinned", "download");
    return put((Step){0, stream, to, from, size}, "download");
}
CUresult cuMemcpyDtoDAsync_v2(void *to, void *from, size_t size, void *stream) {
    return put((Step){0, stream, to, from, size}, "copy");
}

CUresult cuStreamCreate(void **stream, unsigned flags) {
    if (!here("stream")) return INVALID_CONTEXT;
    if (flags != 1) mistake("waits for the default stream", "stream");
    *stream = keep(calloc(1, sizeof(Stream)), sizeof(Stream), STREAM);
    return OK;
}
CUresult cuStreamDestroy_v2(void *stream) { return drop(stream, STREAM, "stream"); }
CUresult cuStreamSynchronize(void *stream) {
    note("wait");
    if (forbidden_in_capture("wait")) return CAPTURE;
    drain(stream);
    return here("wait") ? OK : INVALID_CONTEXT;
}
CUresult cuEventCreate(void **event, unsigned flags) {
    if (!here("event")) return INVALID_CONTEXT;
    *event = keep(calloc(1, sizeof(Event)), sizeof(Event), EVENT);
    return OK;
}
CUresult cuEventDestroy_v2(void *event) { return drop(event, EVENT, "event"); }
CUresult cuEventRecord(void *event, void *stream) {
    if (!find(event, 1, EVENT)) { mistake("recorded, but not there", "event"); return INVALID_HANDLE; }
    return put((Step){2, stream, event}, "record");
}
CUresult cuEventElapsedTime(float *ms, void *start, void *end) {
    if (!find(start, 1, EVENT) || !find(end, 1, EVENT)) { mistake("measured, but not there", "event"); return INVALID_HANDLE; }
    for (int i = 0; i < queued; i++)
        if (queue[i].op == 2 && (queue[i].to == start || queue[i].to == end)) mistake("measured before it happened", "event");
    *ms = ((Event *)end)->at - ((Event *)start)->at;
    return OK;
}
CUresult cuEventElapsedTime_v2(float *ms, void *start, void *end) { return cuEventElapsedTime(ms, start, end); }

CUresult cuStreamBeginCapture_v2(void *stream, int mode) {
    note("capture");
    if (!find(stream, 1, STREAM) || ((Stream *)stream)->capturing) { mistake("cannot begin", "capture"); return INVALID_HANDLE; }
    ((Stream *)stream)->capturing = keep(calloc(1, sizeof(Graph)), sizeof(Graph), GRAPH);
    ((Stream *)stream)->broken = 0;
    return OK;
}
CUresult cuStreamEndCapture(void *stream, void **graph) {
    Stream *found = stream;
    if (!find(stream, 1, STREAM) || !found->capturing) { mistake("was not begun", "capture"); return INVALID_HANDLE; }
    *graph = found->capturing;
    found->capturing = NULL;
    if (!found->broken) return OK;
    drop(*graph, GRAPH, "graph");
    *graph = NULL;
    return CAPTURE;
}
CUresult cuGraphInstantiateWithFlags(void **exec, void *graph, unsigned long long flags) {
    if (!find(graph, 1, GRAPH)) { mistake("made of no graph", "executable graph"); return INVALID_HANDLE; }
    *exec = keep(memcpy(malloc(sizeof(Graph)), graph, sizeof(Graph)), sizeof(Graph), EXEC);
    return OK;
}
CUresult cuGraphDestroy(void *graph) { return drop(graph, GRAPH, "graph"); }
CUresult cuGraphExecDestroy(void *exec) { return drop(exec, EXEC, "executable graph"); }
CUresult cuGraphLaunch(void *exec, void *stream) {
    note("launch");
    if (!find(exec, 1, EXEC) || !find(stream, 1, STREAM)) { mistake("not there", "launch"); return INVALID_HANDLE; }
    Graph *graph = exec;
    for (int i = 0; i < graph->count; i++) { graph->steps[i].stream = stream; queue[queued++] = graph->steps[i]; }
    return OK;
}

/* How cuda-bindings finds functions: by their first name, and the version of CUDA they are wanted of. */
CUresult cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, int *status) {
    static void *self;
    char versioned[128];
    if (!self) { Dl_info info; dladdr((void *)cuInit, &info); self = dlopen(info.dli_fname, RTLD_LAZY); }
    snprintf(versioned, sizeof versioned, "%s_v2", name);
    *function = dlsym(self, versioned);
    if (!*function) *function = dlsym(self, name);
    if (status) *status = *function ? 0 : 1;
    return *function ? OK : NOT_FOUND;
}
CUresult cuGetProcAddress(const char *name, void **function, int version, uint64_t flags) {
    return cuGetProcAddress_v2(name, function, version, flags, NULL);
}
