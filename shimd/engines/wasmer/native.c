/* wasmer for workers without Python: native.py's load and run, on the library of shimd-wasmer-native, which is the argument
 * (its functions: native/wasmer/src/lib.rs). */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "../engine.h"

enum { FAILED = -1, TRAPPED = -3 };

static void *(*new_engine)(void);
static int (*load_module)(void *, const char *, void **, char **);
static int (*run_module)(void *, void *, const char *, char **);

static void *engine;

/* native.py packs it. */
struct block {
    const char *module;
    uint64_t size;
    const char *invocation;
};

static struct { const struct block *block; void *module; } program;

static void *load(void *context, const void *data, int *code, char *sentence, size_t size) {
    const struct block *block = data;
    char *text = "it is not whole";
    struct stat status;
    (void)context;
    program.block = block;
    if (stat(block->module, &status) == 0 && (uint64_t)status.st_size == block->size &&
        load_module(engine, block->module, &program.module, &text) != FAILED)
        return &program;
    *code = DATA_LOSS;
    snprintf(sentence, size, "the compiled module does not load: %s", text);
    one_line(sentence);
    return NULL;
}

static int run(void *unused) {
    char *text = NULL;
    (void)unused;
    int code = run_module(engine, program.module, program.block->invocation, &text);
    if (code == TRAPPED) return complain(text, strlen(text), EXIT_TRAP);
    return code == FAILED ? failed(one_line(text)) : code;
}

const struct engine *shimd_engine(int count, char *const arguments[]) {
    static const struct engine ours = {load, run, NULL};
    void *library = count == 1 ? dlopen(arguments[0], RTLD_NOW | RTLD_LOCAL) : NULL;
    if (library == NULL) return NULL;
    *(void **)&new_engine = dlsym(library, "shimd_wasmer_engine");
    *(void **)&load_module = dlsym(library, "shimd_wasmer_load");
    *(void **)&run_module = dlsym(library, "shimd_wasmer_run");
    if (new_engine == NULL || load_module == NULL || run_module == NULL) return NULL;
    engine = new_engine();
    return &ours;
}
