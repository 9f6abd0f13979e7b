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
#endif
