/*
 * One program for both worlds, whose end is known beforehand: gcc builds it for native containers and as a log program,
 * clang for WASI. Usage: guest COMMAND [ARGUMENT...]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void wait_for(long milliseconds) {
    for (; milliseconds > 0; milliseconds -= 100)
        usleep((milliseconds < 100 ? milliseconds : 100) * 1000);
}

/* Numbered lines, in ten bursts: whoever reads them can tell whether one is missing. */
static int talk(long milliseconds, int code, int lines) {
    int bursts = 0;
    for (int line = 0; line < lines; line++) {
        printf("line %08d ..................................................\n", line);
        if (line % (lines / 10 + 1) == 0) {
            fflush(stdout);
            wait_for(milliseconds / 10);
            bursts++;
        }
    }
    fflush(stdout);
    wait_for(milliseconds - bursts * (milliseconds / 10));
    return code;
}

/* The sum of all bytes of the input, which must have come whole. */
static int sum(void) {
    int total = 0;
    for (int byte; (byte = getchar()) != EOF;)
        total += byte;
    return total % 100;
}

#ifndef __wasm__
/* A log program: "log FILE", as containerd's URIs name it, with the streams at 3 and 4 and who waits at 5. */
static int log_to(const char *path) {
    char buffer[4096];
    FILE *file = fopen(path, "a");
    close(5);
    for (ssize_t got; file && (got = read(3, buffer, sizeof buffer)) > 0; fflush(file))
        fwrite(buffer, 1, (size_t)got, file);
    return 0;
}
#endif

int main(int argc, char **argv) {
    const char *command = argc > 1 ? argv[1] : "";
    long milliseconds = argc > 2 ? atol(argv[2]) : 0;
    int code = argc > 3 ? atoi(argv[3]) : 0;
#ifndef __wasm__
    if (!strcmp(command, "log") && argc > 2)
        return log_to(argv[2]);
#endif
    if (!strcmp(command, "sum"))
        return sum();
    if (!strcmp(command, "talk"))
        return talk(milliseconds, code, argc > 4 ? atoi(argv[4]) : 0);
    wait_for(milliseconds);
    if (!strcmp(command, "abort"))
        abort();
    return code;
}
