/* Checks of single WASI preview 1 calls, and what many guests do first. Descriptors 0 to 2 are stdio; preopened
   directories follow. */
#pragma once

#include "check.h"
#include <stdint.h>
#include <wasi/api.h>

#define E(name) __WASI_ERRNO_##name
#define R(name) __WASI_RIGHTS_##name

/* The call must succeed. */
#define OK(call) outcome(__FILE_NAME__, __LINE__, #call, (call), (const uint16_t[]){0}, 1)
/* The call must fail with one of these, as E(name). */
#define FAILS(call, ...) \
    outcome(__FILE_NAME__, __LINE__, #call, (call), (const uint16_t[]){__VA_ARGS__}, \
            sizeof((const uint16_t[]){__VA_ARGS__}) / sizeof(uint16_t))
/* The call must fail, in whatever way. */
#define FAILS_SOMEHOW(call) CHECK((call) != E(SUCCESS))

static inline void outcome(
    const char *file, int line, const char *call, uint16_t got, const uint16_t *wanted, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (got == wanted[i])
            return;
    fprintf(stderr, "%s:%d: %s gave \"%s\", not", file, line, call, got ? strerror(got) : "success");
    for (size_t i = 0; i < count; i++)
        fprintf(stderr, "%s \"%s\"", i ? " or" : "", wanted[i] ? strerror(wanted[i]) : "success");
    fputs("\n", stderr);
    exit(1);
}
