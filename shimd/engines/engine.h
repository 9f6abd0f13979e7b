/* What a worker without Python needs of an engine: engine.py's ``RunsWithoutPython``, in C. */
#ifndef SHIMD_ENGINE_H
#define SHIMD_ENGINE_H
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "constants.h"

struct engine {
    /* The compiled program that a block of the engine's own (linux/packed.py) describes; NULL: the gRPC status code and a
     * sentence say why not. Where run() handles signals itself, load() sets their bits in *code, 1 for signal 1; it was 0.
     * Its files are below the working directory, in `artifact`. The process has the privileges of its guest by then, but
     * for the seccomp filter, or a root's (docs/security.md). */
    void *(*load)(void *context, const void *block, int *code, char *sentence, size_t size);
    /* Run it to its end on the calling thread; returns the exit code. Traps and failures are told on descriptor 2. */
    int (*run)(void *program);
    void *context;
};

/* What a library with such a part exports as `shimd_engine`: called once, before the first fork, with the arguments that
 * its Python part names; all that can be made before it is known what will run. It starts no thread: none would survive
 * the fork. NULL: it cannot work here. */
typedef const struct engine *make_engine(int count, char *const arguments[]);
make_engine shimd_engine;


static inline void tell(const char *text, size_t size) {
    while (size) {
        ssize_t written = write(2, text, size);
        if (written <= 0) return; /* nobody listens any more */
        text += written;
        size -= (size_t)written;
    }
}

/* A sentence has one. */
static inline char *one_line(char *text) {
    for (char *c = text; *c; c++)
        if (*c == '\n') *c = ' ';
    return text;
}

/* What a guest did wrong, on its own standard error. */
static inline int complain(const char *text, size_t size, int code) {
    while (size && (text[size - 1] == '\n' || text[size - 1] == '\0')) size--;
    if (size) {
        tell(text, size);
        tell("\n", 1);
    }
    return code;
}

/* What we did. */
static inline int failed(const char *what) {
    tell("shimd: ", 7);
    return complain(what, strlen(what), EXIT_ENGINE);
}
#endif
