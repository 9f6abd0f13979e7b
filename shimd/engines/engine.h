/* What a worker without Python needs of an engine: base.py's ``RunsInC``, in C. */
#ifndef SHIMD_ENGINE_H
#define SHIMD_ENGINE_H
#include <stddef.h>

struct engine {
    /* The compiled program that a block of the engine's own (linux/packed.py) describes; NULL: the gRPC status code and a
     * sentence say why not. The process is not confined yet. */
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
#endif
