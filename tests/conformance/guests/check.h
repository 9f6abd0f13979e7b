/* Checks of the guests. The first that fails says so on stderr and ends the guest with code 1. */
#pragma once

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE_NAME__, __LINE__, #condition); \
            exit(1); \
        } \
    } while (0)

/* A call of POSIX that must work; its result, which is not -1. */
#define WORKS(call) works(__FILE_NAME__, __LINE__, #call, (call))

/* A call of POSIX that must fail, and tell why by this errno. */
#define REFUSED(call, number) refused(__FILE_NAME__, __LINE__, #call, (call), number)

static inline long long works(const char *file, int line, const char *call, long long result)
{
    if (result == -1) {
        fprintf(stderr, "%s:%d: %s: %s\n", file, line, call, strerror(errno));
        exit(1);
    }
    return result;
}

static inline void refused(const char *file, int line, const char *call, long long result, int number)
{
    if (result != -1 || errno != number) {
        const char *got = result == -1 ? strerror(errno) : "success";
        fprintf(stderr, "%s:%d: %s gave \"%s\", not \"%s\"\n", file, line, call, got, strerror(number));
        exit(1);
    }
}
