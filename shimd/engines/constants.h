/* Made by tools/headers.py; not to be edited. */
#ifndef SHIMD_CONSTANTS_H
#define SHIMD_CONSTANTS_H

enum { EXIT_TRAP = 134, EXIT_ENGINE = 137, DATA_LOSS = 15, INVALID_ARGUMENT = 3 };
#define WASMTIME_SETTINGS(SETTING) \
    SETTING(wasm_component_model, true) \
    SETTING(concurrency_support, false)

#endif
