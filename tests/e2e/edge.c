/*
 * What WasmEdge's sockets can do: its extension of wasi_snapshot_preview1, used as its own SDKs use it.
 * Usage: edge serve PORT FILE | edge datagrams PORT | edge get A.B.C.D PORT PATH
 */
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wasi/api.h>

#define IMPORT(name) __attribute__((import_module("wasi_snapshot_preview1"), import_name(#name)))
enum { INET4 = 1, DATAGRAM = 1, STREAM = 2, SOCKET_LEVEL = 0, REUSE_ADDRESS = 0, CLIENTS = 16 };

struct bytes {
    uint8_t *data;
    uint32_t size;
};

IMPORT(sock_open) int32_t sock_open(uint32_t family, uint32_t type, uint32_t *fd);
IMPORT(sock_bind) int32_t sock_bind(uint32_t fd, struct bytes *address, uint32_t port);
IMPORT(sock_listen) int32_t sock_listen(uint32_t fd, uint32_t backlog);
IMPORT(sock_accept) int32_t edge_accept(uint32_t fd, uint32_t *connection);
IMPORT(sock_connect) int32_t sock_connect(uint32_t fd, struct bytes *address, uint32_t port);
IMPORT(sock_setsockopt)
int32_t sock_setsockopt(uint32_t fd, uint32_t level, uint32_t name, const void *value, uint32_t size);
IMPORT(sock_recv_from_v2)
int32_t sock_recv_from(uint32_t fd, struct bytes *into, uint32_t count, struct bytes *address, uint32_t flags,
                       uint32_t *port, uint32_t *size, uint32_t *flags_out);
IMPORT(sock_send_to_v2)
int32_t sock_send_to(uint32_t fd, const struct bytes *from, uint32_t count, struct bytes *address, int32_t port,
                     uint32_t flags, uint32_t *size);

static uint8_t any[4];

static int fail(const char *what, int32_t error) {
    fprintf(stderr, "%s: %s\n", what, strerror(error));
    return 1;
}

static void must(const char *what, int32_t error) {
    if (error)
        exit(fail(what, error));
}

static uint32_t bound(uint32_t type, int port) {
    uint32_t fd, yes = 1;
    struct bytes address = {any, sizeof any};
    must("sock_open", sock_open(INET4, type, &fd));
    must("sock_setsockopt", sock_setsockopt(fd, SOCKET_LEVEL, REUSE_ADDRESS, &yes, sizeof yes));
    must("sock_bind", sock_bind(fd, &address, port));
    must("non-blocking", __wasi_fd_fdstat_set_flags(fd, __WASI_FDFLAGS_NONBLOCK));
    return fd;
}

/* How often it was asked, over all of its lives: kept in a file. */
static unsigned long counted(const char *path) {
    unsigned long count = 0;
    FILE *file = fopen(path, "r");
    if (file) {
        if (fscanf(file, "%lu", &count) != 1)
            count = 0;
        fclose(file);
    }
    if (!(file = fopen(path, "w")))
        exit(fail(path, errno));
    fprintf(file, "%lu\n", ++count);
    fclose(file);
    return count;
}

/* Answers what has come; 0: the connection is at its end. */
static int answer(int fd, const char *path) {
    char request[1024], body[64], reply[256];
    ssize_t size = read(fd, request, sizeof request - 1);
    if (size < 0 && errno == EAGAIN)
        return 1;
    if (size <= 0)
        return 0;
    int length = snprintf(body, sizeof body, "request %lu\n", counted(path));
    size = snprintf(reply, sizeof reply, "HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%s", length, body);
    write(fd, reply, size);
    return 0;
}

/* One thread for all clients, none of whom can make the others wait. */
static int serve(int port, const char *path) {
    struct pollfd fds[1 + CLIENTS];
    int count = 1;
    fds[0] = (struct pollfd){.fd = (int)bound(STREAM, port), .events = POLLIN};
    must("sock_listen", sock_listen(fds[0].fd, 16));
    uint32_t fd;
    int32_t error = edge_accept(fds[0].fd, &fd);
    if (error != __WASI_ERRNO_AGAIN)
        return fail("accept without a client", error);
    printf("listening on port %d\n", port);
    fflush(stdout);
    for (;;) {
        if (poll(fds, count, -1) < 0)
            return fail("poll", errno);
        for (int i = count - 1; i > 0; i--)
            if (fds[i].revents && !answer(fds[i].fd, path)) {
                close(fds[i].fd);
                fds[i] = fds[--count];
            }
        if (fds[0].revents && count <= CLIENTS && !edge_accept(fds[0].fd, &fd)) {
            must("non-blocking", __wasi_fd_fdstat_set_flags(fd, __WASI_FDFLAGS_NONBLOCK));
            fds[count++] = (struct pollfd){.fd = (int)fd, .events = POLLIN};
        }
    }
}

/* Sends each datagram back to whom it came from, until one says "end". */
static int datagrams(int port) {
    uint8_t data[512], from[128]; /* the second form of addresses: family and address, always so long */
    uint32_t fd = bound(DATAGRAM, port), size, flags, sender = 0; /* of which it sets the lower half */
    printf("listening on port %d\n", port);
    fflush(stdout);
    for (;;) {
        struct pollfd waiting = {.fd = (int)fd, .events = POLLIN};
        if (poll(&waiting, 1, -1) < 0)
            return fail("poll", errno);
        struct bytes into = {data, sizeof data}, address = {from, sizeof from};
        must("sock_recv_from", sock_recv_from(fd, &into, 1, &address, 0, &sender, &size, &flags));
        sender = sender >> 8 | (sender & 0xff) << 8; /* WasmEdge 0.14 gives it as it came, and takes it in our order */
        struct bytes back = {data, size};
        must("sock_send_to", sock_send_to(fd, &back, 1, &address, (int32_t)sender, 0, &size));
        if (size == 3 && !memcmp(data, "end", 3))
            return 0;
    }
}

static int get(const char *text, int port, const char *path) {
    uint8_t octets[4];
    uint32_t fd;
    struct bytes address = {octets, sizeof octets};
    char buffer[512];
    if (sscanf(text, "%hhu.%hhu.%hhu.%hhu", &octets[0], &octets[1], &octets[2], &octets[3]) != 4)
        return fail(text, EINVAL);
    must("sock_open", sock_open(INET4, STREAM, &fd));
    must("sock_connect", sock_connect(fd, &address, port));
    int size = snprintf(buffer, sizeof buffer, "GET %s HTTP/1.0\r\n\r\n", path);
    write((int)fd, buffer, size);
    for (ssize_t got; (got = read((int)fd, buffer, sizeof buffer)) > 0;)
        fwrite(buffer, 1, got, stdout);
    return 0;
}

int main(int argc, char **argv) {
    const char *command = argc > 1 ? argv[1] : "";
    if (argc == 4 && !strcmp(command, "serve"))
        return serve(atoi(argv[2]), argv[3]);
    if (argc == 3 && !strcmp(command, "datagrams"))
        return datagrams(atoi(argv[2]));
    if (argc == 5 && !strcmp(command, "get"))
        return get(argv[2], atoi(argv[3]), argv[4]);
    fprintf(stderr, "unknown command %s\n", command);
    return 2;
}
