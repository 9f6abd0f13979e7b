/*
 * A plugin of WasmEdge that has the name of the one for WASI-NN, and one function: it gives the number that a variable
 * of the container's says. (Declarations as in wasmedge.h of 0.14, which Debian's plugin interface is of.)
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct { uint32_t length; const char *start; } String;
typedef struct { uint8_t data[8]; } Type;
typedef struct { __int128 number; Type type; } Value;
typedef struct { uint32_t code; } Result;
typedef struct Module { const char *name, *description; void *(*create)(const struct Module *); } Module;
typedef struct {
    const char *name, *description;
    uint32_t api, version[4], modules, options;
    const Module *module;
    const void *option;
} Plugin;

static void *library(const char *name) {
    return dlsym(dlopen("libwasmedge.so.0", RTLD_LAZY | RTLD_NOLOAD), name);
}

static Result answer(void *data, const void *frame, const Value *in, Value *out) {
    (void)data, (void)frame, (void)in;
    memset(out, 0, sizeof *out);
    out->number = atoi(getenv("WASMEDGE_ANSWER"));
    out->type = ((Type(*)(void))library("WasmEdge_ValTypeGenI32"))();
    return (Result){0};
}

static void *create(const Module *self) {
    void *(*make)(String) = library("WasmEdge_ModuleInstanceCreate");
    void *(*type)(const Type *, uint32_t, const Type *, uint32_t) = library("WasmEdge_FunctionTypeCreate");
    void *(*function)(const void *, Result (*)(void *, const void *, const Value *, Value *), void *, uint64_t) =
        library("WasmEdge_FunctionInstanceCreate");
    void (*add)(void *, String, void *) = library("WasmEdge_ModuleInstanceAddFunction");
    Type number = ((Type(*)(void))library("WasmEdge_ValTypeGenI32"))();
    void *module = make((String){strlen(self->name), self->name});
    add(module, (String){6, "answer"}, function(type(0, 0, &number, 1), answer, 0, 0));
    return module;
}

static const Module module = {"wasi_ephemeral_nn", "", create};
static const Plugin plugin = {"wasi_nn", "", 4, {0}, 1, 0, &module, 0};

const Plugin *WasmEdge_Plugin_GetDescriptor(void) {
    return &plugin;
}
