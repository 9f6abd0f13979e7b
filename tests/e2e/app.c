/*
 * One program for both worlds: built by gcc for runc, by clang for WASI. What a test expects of shimd, the same source
 * has shown under runc first. Usage: app COMMAND [ARGUMENT...]
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern char **environ;

static int fail(const char *what) {
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    return 1;
}

static int echo(int count, char **words) {
    for (int i = 0; i < count; i++)
        printf("%s%s", i ? " " : "", words[i]);
    putchar('\n');
    return 0;
}

static int env(void) {
    for (char **variable = environ; *variable; variable++)
        puts(*variable);
    return 0;
}

static int copy(FILE *from) {
    char buffer[4096];
    size_t got;
    do { /* one short read is the end: a terminal could go on after it */
        got = fread(buffer, 1, sizeof buffer, from);
        fwrite(buffer, 1, got, stdout);
    } while (got == sizeof buffer);
    return 0;
}

/* Each line as it comes, to the end; with a code that no signal and no other end has. */
static int lines(void) {
    char line[4096];
    while (fgets(line, sizeof line, stdin)) {
        fputs(line, stdout);
        fflush(stdout);
    }
    return 4;
}

static int read_file(const char *path) {
    FILE *file = fopen(path, "r");
    if (!file)
        return fail(path);
    copy(file);
    return fclose(file) ? fail(path) : 0;
}

static int write_file(const char *path, const char *text) {
    FILE *file = fopen(path, "w");
    if (!file)
        return fail(path);
    fprintf(file, "%s\n", text);
    return fclose(file) ? fail(path) : 0;
}

static int list(const char *path) {
    DIR *directory = opendir(path);
    if (!directory)
        return fail(path);
    for (struct dirent *entry; (entry = readdir(directory));)
        puts(entry->d_name);
    closedir(directory);
    return 0;
}

/* A line now, then no further system call, for ever. */
_Noreturn static void spin(void) {
    puts("spinning");
    fflush(stdout);
    for (volatile unsigned long turns = 0;; turns++)
        ;
}

static int sleep_for(unsigned seconds) {
    puts("sleeping");
    fflush(stdout);
    sleep(seconds);
    puts("awake");
    return 0;
}

/* A line on each stream, and then nothing for ten minutes. */
static int both(const char *out, const char *err) {
    puts(out);
    fflush(stdout);
    fprintf(stderr, "%s\n", err);
    sleep(600);
    return 0;
}

/* A line every 20 ms, for ever. */
_Noreturn static void tick(void) {
    for (unsigned long count = 0;; count++) {
        printf("tick %lu\n", count);
        fflush(stdout);
        usleep(20000);
    }
}

/* Memory that is really used, a mebibyte at a time. */
static int allocate(int mebibytes) {
    for (int i = 0; i < mebibytes; i++) {
        char *block = malloc(1 << 20);
        if (!block)
            return fail("malloc");
        memset(block, 1 + i % 255, 1 << 20);
        __asm__ volatile("" : : "r"(block) : "memory"); // else the compiler sees that nobody reads it
    }
    puts("allocated");
    return 0;
}

int main(int argc, char **argv) {
    const char *command = argc > 1 ? argv[1] : "hello";
    const char *first = argc > 2 ? argv[2] : "";
    if (!strcmp(command, "hello"))
        return puts("hello from app") < 0;
    if (!strcmp(command, "echo"))
        return echo(argc - 2, argv + 2);
    if (!strcmp(command, "error"))
        return fprintf(stderr, "%s\n", first) < 0;
    if (!strcmp(command, "both"))
        return both(first, argc > 3 ? argv[3] : "");
    if (!strcmp(command, "exit")) { /* with some last words, perhaps */
        if (argc > 3)
            echo(argc - 3, argv + 3);
        return atoi(first);
    }
    if (!strcmp(command, "abort"))
        abort();
    if (!strcmp(command, "env"))
        return env();
    if (!strcmp(command, "cat"))
        return copy(stdin);
    if (!strcmp(command, "lines"))
        return lines();
    if (!strcmp(command, "read"))
        return read_file(first);
    if (!strcmp(command, "write"))
        return write_file(first, argc > 3 ? argv[3] : "");
    if (!strcmp(command, "list"))
        return list(first);
    if (!strcmp(command, "isatty"))
        return puts(isatty(0) ? "tty" : "no tty") < 0;
    if (!strcmp(command, "spin"))
        spin();
    if (!strcmp(command, "sleep"))
        return sleep_for((unsigned)atoi(first));
    if (!strcmp(command, "tick"))
        tick();
    if (!strcmp(command, "allocate"))
        return allocate(atoi(first));
    fprintf(stderr, "unknown command %s\n", command);
    return 2;
}
