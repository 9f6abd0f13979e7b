#include <engine.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>

struct block { /* EchoEngine.pack */
    const char *artifact;
    uint64_t count;
    const char *const *args;
};

static void *load(void *context, const void *block, int *code, char *sentence, size_t size) {
    const char *path = ((const struct block *)block)->artifact;
    struct stat status;
    (void)context;
    if (stat(path, &status) == 0 && status.st_size) return (void *)block;
    *code = DATA_LOSS;
    snprintf(sentence, size, "the module %s does not load: it is empty", path);
    return NULL;
}

static int run(void *program) {
    const struct block *block = program;
    for (uint64_t i = 0; i < block->count; i++) {
        const char *text = i ? block->args[i] : "C:";
        tell(i ? " " : "", i != 0);
        tell(text, strlen(text));
    }
    tell("\n", 1);
    return (int)block->count;
}

const struct engine *shimd_engine(int count, char *const arguments[]) {
    static const struct engine ours = {load, run, NULL};
    return count == 1 && strcmp(arguments[0], "C:") == 0 ? &ours : NULL;
}
