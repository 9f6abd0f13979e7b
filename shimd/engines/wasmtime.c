/* wasmtime for workers without Python: wasmtime.py's load and run, on the C API of the library that wasmtime-py carries,
 * which is the first argument; the second are sizes of its structures. The types are those of its bindings (_bindings.py). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine.h"
#include "contained.h"

enum { EXIT_FAILURE_OF_GUEST = 1 };
enum { KIND_FUNC = 0, KIND_RESULT = 19 };

typedef struct { size_t size; char *data; } bytes;
typedef struct { uint8_t kind; union { int32_t i32; uint64_t words[3]; } of; } value;
typedef struct { uint8_t kind; union { bool is_ok; uint64_t words[3]; } of; } component_value;
typedef struct { uint64_t words[2]; } handle;
typedef struct { uint8_t kind; union { handle func; uint64_t words[3]; } of; } external;
typedef struct { uint64_t words[4]; } component_function;
typedef void *callback(void *, void *, const value *, size_t, value *, size_t);

#define FUNCTIONS(F)                                                                                              \
    F(wasm_config_new, void *, (void))                                                                            \
    F(wasmtime_config_parallel_compilation_set, void, (void *, bool))                                             \
    F(wasm_engine_new_with_config, void *, (void *))                                                              \
    F(wasmtime_module_deserialize_file, void *, (void *, const char *, void **))                                  \
    F(wasmtime_component_deserialize_file, void *, (void *, const char *, void **))                               \
    F(wasmtime_linker_new, void *, (void *))                                                                      \
    F(wasmtime_linker_allow_shadowing, void, (void *, bool))                                                      \
    F(wasmtime_linker_define_wasi, void *, (void *))                                                              \
    F(wasmtime_linker_define_func, void *,                                                                        \
      (void *, const char *, size_t, const char *, size_t, void *, callback *, void *, void *))                   \
    F(wasmtime_linker_instantiate, void *, (void *, void *, void *, handle *, void **))                           \
    F(wasmtime_component_linker_new, void *, (void *))                                                            \
    F(wasmtime_component_linker_add_wasip2, void *, (void *))                                                     \
    F(wasmtime_component_linker_instantiate, void *, (void *, void *, void *, handle *))                          \
    F(wasmtime_component_instance_get_export_index, void *, (handle *, void *, void *, const char *, size_t))     \
    F(wasmtime_component_instance_get_func, bool, (handle *, void *, void *, component_function *))               \
    F(wasmtime_component_func_call, void *,                                                                       \
      (component_function *, void *, void *, size_t, component_value *, size_t))                                  \
    F(wasmtime_instance_export_get, bool, (void *, handle *, const char *, size_t, external *))                   \
    F(wasmtime_func_call, void *, (void *, handle *, const value *, size_t, value *, size_t, void **))            \
    F(wasmtime_store_new, void *, (void *, void *, void *))                                                       \
    F(wasmtime_store_context, void *, (void *))                                                                   \
    F(wasmtime_context_set_wasi, void *, (void *, void *))                                                        \
    F(wasmtime_error_message, void, (void *, bytes *))                                                            \
    F(wasmtime_error_exit_status, bool, (void *, int *))                                                          \
    F(wasmtime_trap_new, void *, (const char *, size_t))                                                          \
    F(wasm_trap_message, void, (void *, bytes *))                                                                 \
    F(wasm_functype_new, void *, (bytes *, bytes *))                                                              \
    F(wasm_valtype_new, void *, (uint8_t))                                                                        \
    F(wasm_valtype_vec_new, void, (bytes *, size_t, void **))                                                     \
    F(wasm_valtype_vec_new_empty, void, (bytes *))                                                                \
    F(wasi_config_new, void *, (void))                                                                            \
    F(wasi_config_set_argv, bool, (void *, size_t, char **))                                                      \
    F(wasi_config_set_env, bool, (void *, size_t, char **, char **))                                              \
    F(wasi_config_inherit_stdin, void, (void *))                                                                  \
    F(wasi_config_inherit_stdout, void, (void *))                                                                 \
    F(wasi_config_inherit_stderr, void, (void *))                                                                 \
    F(wasi_config_preopen_dir, bool, (void *, const char *, const char *, bool))                                  \
    F(wasi_config_allow_ip_name_lookup, void, (void *, bool))

#define DECLARE(name, result, arguments) static result(*name) arguments;
FUNCTIONS(DECLARE)
#define DECLARE_SETTING(name, value) static void (*wasmtime_config_##name##_set)(void *, bool);
WASMTIME_SETTINGS(DECLARE_SETTING)

static struct { void *engine, *linker, *component_linker; } warm;

/* wasmtime.py packs it. */
struct block {
    const char *artifact, *entry;
    uint64_t is_component;
    uint64_t argc;
    char **argv;
    uint64_t envc;
    char **names, **values;
    uint64_t preopens;
    const struct { const char *host, *guest; uint64_t read_only; } *preopen;
    uint64_t network, contained;
};

static struct { const struct block *block; void *code; } program;

/* proc_exit: with codes, too, that the library's own refuses (126 to 255). */
static struct { bool called; int code; } exited;

static void *proc_exit(void *env, void *caller, const value *arguments, size_t count, value *results, size_t more) {
    (void)env, (void)caller, (void)count, (void)results, (void)more;
    exited.called = true;
    exited.code = arguments[0].of.i32 & 0xff;
    return wasmtime_trap_new("exit", 4);
}

static void message_of(void *error, char *sentence, size_t size) {
    bytes text;
    wasmtime_error_message(error, &text);
    snprintf(sentence, size, "%.*s", (int)text.size, text.data);
}

static void *load(void *context, const void *data, int *code, char *sentence, size_t size) {
    const struct block *block = data;
    char reason[1024];
    (void)context;
    program.block = block;
    void *error = (block->is_component ? wasmtime_component_deserialize_file : wasmtime_module_deserialize_file)(
        warm.engine, block->artifact, &program.code);
    if (error == NULL) {
        if (block->contained) (void)shimd_contained();
        return &program;
    }
    message_of(error, reason, sizeof reason);
    *code = DATA_LOSS;
    snprintf(sentence, size, "the compiled module does not load: %s", one_line(reason));
    return NULL;
}

/* The exit code that a call's error or trap stands for. */
static int outcome(void *error, void *trap) {
    bytes text;
    int status;
    if (exited.called) return exited.code;
    if (error != NULL && wasmtime_error_exit_status(error, &status)) return status & 0xff;
    if (error != NULL) wasmtime_error_message(error, &text);
    else if (trap != NULL) wasm_trap_message(trap, &text);
    else return 0;
    return complain(text.data, text.size, EXIT_TRAP);
}

static void *wasi(const struct block *block) {
    void *config = wasi_config_new();
    bool right = wasi_config_set_argv(config, block->argc, block->argv) &&
                 wasi_config_set_env(config, block->envc, block->names, block->values);
    wasi_config_inherit_stdin(config);
    wasi_config_inherit_stdout(config);
    wasi_config_inherit_stderr(config);
    for (uint64_t i = 0; right && i < block->preopens; i++)
        right = wasi_config_preopen_dir(
            config, block->preopen[i].host, block->preopen[i].guest, !block->preopen[i].read_only);
    if (block->network) wasi_config_allow_ip_name_lookup(config, true); /* names only: wasi_sockets.py */
    return right ? config : NULL;
}

static int run_module(void *store, const struct block *block) {
    handle instance;
    external entry;
    void *trap = NULL;
    void *error = wasmtime_linker_instantiate(warm.linker, store, program.code, &instance, &trap);
    if (error != NULL || trap != NULL) return outcome(error, trap);
    if (!wasmtime_instance_export_get(store, &instance, block->entry, strlen(block->entry), &entry) ||
        entry.kind != KIND_FUNC)
        return failed("the module does not export its entry");
    error = wasmtime_func_call(store, &entry.of.func, NULL, 0, NULL, 0, &trap);
    return outcome(error, trap);
}

/* The run function of the newest wasi:cli/run that the component exports. */
static bool command(void *store, handle *instance, component_function *function) {
    for (int minor = 12; minor >= 0; minor--) {
        char name[32];
        int length = snprintf(name, sizeof name, "wasi:cli/run@0.2.%d", minor);
        void *index = wasmtime_component_instance_get_export_index(instance, store, NULL, name, (size_t)length);
        if (index == NULL) continue;
        index = wasmtime_component_instance_get_export_index(instance, store, index, "run", 3);
        return index != NULL && wasmtime_component_instance_get_func(instance, store, index, function);
    }
    return false;
}

static int run_component(void *store) {
    handle instance;
    component_function function;
    component_value result = {0};
    void *error = wasmtime_component_linker_instantiate(warm.component_linker, store, program.code, &instance);
    if (error != NULL) return outcome(error, NULL);
    if (!command(store, &instance, &function)) return failed("the component does not export wasi:cli/run");
    error = wasmtime_component_func_call(&function, store, NULL, 0, &result, 1);
    if (error != NULL) return outcome(error, NULL);
    return result.kind == KIND_RESULT && !result.of.is_ok ? EXIT_FAILURE_OF_GUEST : 0;
}

static int run(void *unused) {
    const struct block *block = program.block;
    (void)unused;
    void *config = wasi(block);
    if (config == NULL) return failed("a directory of the guest's, an argument or a variable is not to be had");
    void *store = wasmtime_store_context(wasmtime_store_new(warm.engine, NULL, NULL));
    void *error = wasmtime_context_set_wasi(store, config);
    if (error != NULL) return outcome(error, NULL);
    return block->is_component ? run_component(store) : run_module(store, block);
}

static bool define_exit(void) {
    static const char module[] = "wasi_snapshot_preview1", name[] = "proc_exit";
    bytes parameters, results;
    void *i32 = wasm_valtype_new(0);
    wasm_valtype_vec_new(&parameters, 1, &i32);
    wasm_valtype_vec_new_empty(&results);
    void *type = wasm_functype_new(&parameters, &results);
    return wasmtime_linker_define_func(
               warm.linker, module, sizeof module - 1, name, sizeof name - 1, type, proc_exit, NULL, NULL) == NULL;
}

/* As wasmtime_artifact.py's make_engine does, of the same table: what one compiles, the other loads. */
static void *new_engine(void) {
    void *config = wasm_config_new();
    wasmtime_config_parallel_compilation_set(config, false);
#define SET(name, value) wasmtime_config_##name##_set(config, value);
    WASMTIME_SETTINGS(SET)
    return wasm_engine_new_with_config(config);
}

static bool make_warm(void) {
    warm.engine = new_engine();
    warm.linker = wasmtime_linker_new(warm.engine);
    warm.component_linker = wasmtime_component_linker_new(warm.engine);
    wasmtime_linker_allow_shadowing(warm.linker, true);
    if (wasmtime_linker_define_wasi(warm.linker) != NULL || !define_exit()) return false;
    return wasmtime_component_linker_add_wasip2(warm.component_linker) == NULL;
}

/* wasmtime.py's _sizes. */
static bool right_sizes(const char *given) {
    char ours[128];
    snprintf(ours, sizeof ours, "%zu,%zu,%zu,%zu,%zu,%zu", sizeof(bytes), sizeof(value), sizeof(component_value),
             sizeof(handle), sizeof(external), sizeof(component_function));
    if (strcmp(given, ours) == 0) return true;
    fprintf(stderr, "shimd: wasmtime's structures have the sizes %s, and %s were expected\n", given, ours);
    return false;
}

const struct engine *shimd_engine(int count, char *const arguments[]) {
    static const struct engine ours = {load, run, NULL};
    if (count != 2 || !right_sizes(arguments[1])) return NULL;
    void *library = dlopen(arguments[0], RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) return NULL;
#define FIND(name, result, arguments) \
    if ((*(void **)&name = dlsym(library, #name)) == NULL) return NULL; /* not the one these lines were written for */
    FUNCTIONS(FIND)
#define FIND_SETTING(name, value) FIND(wasmtime_config_##name##_set, void, (void *, bool))
    WASMTIME_SETTINGS(FIND_SETTING)
    setenv("TOKIO_WORKER_THREADS", "1", 1); /* of wasmtime-wasi, in each app; else one a processor */
    return make_warm() ? &ours : NULL;
}
