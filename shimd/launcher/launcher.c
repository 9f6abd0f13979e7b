/* containerd-shim-ENGINE-v1, the short cut: what happens for every container, some milliseconds faster than launcher.py.
 *
 * It answers -info, -v, a start that a daemon runs for, and a delete that leaves nothing to do. For all else (wrong
 * arguments, no daemon, a task to clean up) it becomes launcher.py, installed beside it as shimd-launcher, so that what
 * is rare and delicate exists once. PROTOCOL.md is the contract of both. It serves one call: exit frees its memory. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define PREFIX "containerd-shim-"
enum { NAMESPACE, ID, BUNDLE, ADDRESS, PUBLISH_BINARY, SOCKET, DEBUG_SOCKET, DEBUG, SHORT_V, LONG_V, INFO, FLAGS };
static const char *const NAMES[FLAGS] = {
    "namespace", "id", "bundle", "address", "publish-binary", "socket", "debug-socket", "debug", "v", "version", "info",
};
static const char FEATURES_TYPE[] = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";
static const char FEATURES[] = "{\"ociVersionMin\":\"1.0.0\",\"ociVersionMax\":\"1.3.0\",\"hooks\":[\"prestart\",\"createRuntime\","
    "\"createContainer\",\"startContainer\",\"poststart\",\"poststop\"],\"mountOptions\":[\"ro\",\"rw\",\"bind\",\"rbind\","
    "\"rro\"],\"linux\":{\"mountExtensions\":{\"idmap\":{\"enabled\":false}}}}";

static char **arguments;
static const char *program, *flags[FLAGS];

/* ---- what may fail ------------------------------------------------------------------------------------------------ */

static bool write_all(int fd, const char *data, size_t size) {
    while (size) {
        ssize_t n = write(fd, data, size);
        if (n < 0 && errno != EINTR) return false;
        if (n > 0) data += n, size -= (size_t)n;
    }
    return true;
}

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *format, ...) {
    va_list args;
    va_start(args, format);
    dprintf(2, "%s: ", program), vdprintf(2, format, args);
    _exit(1);
}

__attribute__((noreturn)) static void become_python(void) {
    char path[PATH_MAX + 32] = "/", **words = arguments;
    ssize_t n = readlink("/proc/self/exe", path, PATH_MAX);
    while (*words) words++;
    size_t count = (size_t)(words - arguments);
    if (n < 0 || !(words = calloc(count + 2, sizeof *words))) die("cannot find its own file: %s", strerror(errno));
    strcpy(strrchr(path, '/') + 1, "shimd-launcher");
    words[0] = path, words[1] = (char *)program;
    memcpy(words + 2, arguments + 1, count * sizeof *words); /* with the NULL */
    execv(path, words);
    die("cannot run %s: %s", path, strerror(errno));
}

/* ---- messages ----------------------------------------------------------------------------------------------------- */

struct buffer {
    size_t size;
    char data[4 * PATH_MAX];
};

static void put(struct buffer *out, const char *data, size_t size) {
    if (size > sizeof out->data - out->size) become_python();
    memcpy(out->data + out->size, data, size);
    out->size += size;
}

static void put_varint(struct buffer *out, unsigned long long value) {
    for (; value > 127; value >>= 7) put(out, &(char){(char)(value | 128)}, 1);
    put(out, &(char){(char)value}, 1);
}

static void put_number(struct buffer *out, unsigned field, unsigned long long value) {
    put_varint(out, field << 3), put_varint(out, value);
}

static void put_bytes(struct buffer *out, unsigned field, const char *data, size_t size) {
    put_varint(out, field << 3 | 2), put_varint(out, size), put(out, data, size);
}

/* containerd.types.RuntimeInfo */
static void put_info(struct buffer *out, const char *engine, int length, const char *version) {
    struct buffer part = {0}, features = {0};
    char name[NAME_MAX + 32];
    int n = snprintf(name, sizeof name, "io.containerd.%.*s.v%s", length, engine, version);
    put_bytes(out, 1, name, (size_t)n);
    put_bytes(&part, 1, VERSION, strlen(VERSION));
    put_bytes(out, 2, part.data, part.size);
    put_bytes(&features, 1, FEATURES_TYPE, strlen(FEATURES_TYPE));
    put_bytes(&features, 2, FEATURES, strlen(FEATURES));
    put_bytes(out, 4, features.data, features.size);
}

/* containerd.task.v2.DeleteResponse of a task that is gone: killed, now. */
static void put_deleted(struct buffer *out) {
    struct buffer part = {0};
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    put_number(&part, 1, (unsigned long long)now.tv_sec), put_number(&part, 2, (unsigned long long)now.tv_nsec);
    put_number(out, 2, 128 + SIGKILL);
    put_bytes(out, 3, part.data, part.size);
}

/* ---- start -------------------------------------------------------------------------------------------------------- */

static const char *environment(const char *name, const char *otherwise) {
    const char *value = getenv(name);
    return value && *value ? value : otherwise;
}

/* The length of the daemon's reply. */
static size_t exchange(const struct buffer *request, char *reply, size_t room) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *directory = environment("SHIMD_RUNTIME_DIR", "/run/shimd"), *seconds = environment("SHIMD_LAUNCH_TIMEOUT", "10");
    struct timeval limit = {.tv_sec = atoi(seconds)};
    int path = snprintf(address.sun_path, sizeof address.sun_path, "%s/launch.sock", directory);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (limit.tv_sec <= 0 || path < 0 || path >= (int)sizeof address.sun_path) become_python();
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    bool good = connect(fd, (struct sockaddr *)&address, sizeof address) == 0;
    good = good && write_all(fd, request->data, request->size) && shutdown(fd, SHUT_WR) == 0;
    size_t size = 0;
    for (ssize_t n = 1; good && n && size < room; size += n > 0 ? (size_t)n : 0)
        good = (n = read(fd, reply + size, room - size)) >= 0 || errno == EINTR;
    if (!good && errno == EAGAIN) die("shimd does not answer at %s within %s s", address.sun_path, seconds);
    if (!good || !size) become_python();
    close(fd);
    return size;
}

static void start(const char *engine, size_t length, struct buffer *out) {
    struct buffer request = {0};
    char grpc[PATH_MAX], ttrpc[PATH_MAX + 8], bundle[PATH_MAX], reply[PATH_MAX + 8] = "";
    snprintf(grpc, sizeof grpc, "%s", flags[ADDRESS] && *flags[ADDRESS] ? flags[ADDRESS] : environment("GRPC_ADDRESS", ""));
    snprintf(ttrpc, sizeof ttrpc, "%s.ttrpc", grpc);
    if (flags[BUNDLE] || !getcwd(bundle, sizeof bundle)) become_python();
    const char *fields[] = {environment("TTRPC_ADDRESS", ttrpc), grpc, flags[ID], bundle};
    put(&request, "start", 6), put(&request, engine, length), put(&request, "", 1);
    put(&request, flags[NAMESPACE], strlen(flags[NAMESPACE]) + 1);
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) put(&request, fields[i], strlen(fields[i]) + 1);
    size_t size = exchange(&request, reply, sizeof reply - 1);
    if (!strncmp(reply, "error ", 6)) die("%s", reply + 6);
    if (strncmp(reply, "ok ", 3) || size < 4) die("shimd gave an answer that makes no sense");
    int fd = open(".address", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0 || !write_all(fd, reply + 3, size - 3) || close(fd) < 0 || rename(".address", "address") < 0)
        die("%s/address: %s", bundle, strerror(errno));
    put(out, reply + 3, size - 3);
}

/* ---- arguments ---------------------------------------------------------------------------------------------------- */

/* By the rules of Go's flag package: -f v, -f=v, one dash or two. The action. */
static const char *parse(char **words) {
    for (; *words && (*words)[0] == '-' && (*words)[1] && strcmp(*words, "--"); words++) {
        const char *name = *words + ((*words)[1] == '-' ? 2 : 1);
        size_t length = strcspn(name, "=");
        int i = 0;
        while (i < FLAGS && (strlen(NAMES[i]) != length || strncmp(NAMES[i], name, length))) i++;
        if (i == FLAGS || (i >= DEBUG && name[length]) || (i < DEBUG && !name[length] && !words[1])) become_python();
        flags[i] = name[length] ? name + length + 1 : i < DEBUG ? *++words : "";
    }
    if (*words && !strcmp(*words, "--")) words++;
    return *words ? *words : "";
}

int main(int argc, char **argv) {
    struct buffer out = {0};
    if (argc < 1) return 1;
    arguments = argv;
    signal(SIGPIPE, SIG_IGN);
    program = strrchr(argv[0], '/') ? strrchr(argv[0], '/') + 1 : argv[0];
    const char *engine = program + strlen(PREFIX), *end = strncmp(program, PREFIX, strlen(PREFIX)) ? NULL : strstr(engine, "-v");
    if (!end || end == engine || !end[2] || end[2 + strspn(end + 2, "0123456789")]) become_python();
    const char *action = parse(argv + 1);
    if (flags[SHORT_V] || flags[LONG_V])
        out.size = (size_t)snprintf(out.data, sizeof out.data, "%s:\n  Version:  %s\n  Launcher: C\n", program, VERSION);
    else if (flags[INFO])
        put_info(&out, engine, (int)(end - engine), end + 2);
    else if (!flags[NAMESPACE] || !*flags[NAMESPACE] || !flags[ID] || !*flags[ID])
        become_python();
    else if (!strcmp(action, "start"))
        start(engine, (size_t)(end - engine), &out);
    else if (!strcmp(action, "delete") && (!flags[BUNDLE] || chdir(flags[BUNDLE]) == 0) && access("shimd.task", F_OK) < 0 &&
             errno == ENOENT)
        put_deleted(&out);
    else
        become_python();
    return write_all(1, out.data, out.size) ? 0 : 1;
}
