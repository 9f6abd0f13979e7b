/* An HTTP server as a WASIX module: io.containerd.wasmer.v1, or runtimeClassName: wasmer.
 *
 * Plain WASI preview 1 has no listening sockets; these four calls are WASIX's (wasix.org), which Wasmer offers. The rest is
 * WASI, so an ordinary clang makes it: clang --target=wasm32-wasi -O2 -o server.wasm server.c */
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define WASIX(name) __attribute__((import_module("wasix_32v1"), import_name(name)))
enum { INET4 = 1, STREAM = 1, TCP = 6, PORT = 8080 };

struct address {
    uint8_t family, padding;
    uint8_t octets[18]; /* of INET4: the port in the machine's order, and four of the address */
};

WASIX("sock_open") int sock_open(int family, int type, int protocol, int *fd);
WASIX("sock_bind") int sock_bind(int fd, const struct address *address);
WASIX("sock_listen") int sock_listen(int fd, int backlog);
WASIX("sock_accept_v2") int sock_accept(int fd, int flags, int *connection, struct address *peer);

static const char ANSWER[] = "HTTP/1.1 200 OK\r\n"
                             "Content-Type: text/plain\r\n"
                             "Content-Length: 24\r\n"
                             "Connection: close\r\n\r\n"
                             "hello from WebAssembly!\n";

static int listening(int *fd) {
    struct address any = {.family = INET4};
    uint16_t port = PORT;
    memcpy(any.octets, &port, sizeof port);
    int error = sock_open(INET4, STREAM, TCP, fd);
    if (!error)
        error = sock_bind(*fd, &any);
    return error ? error : sock_listen(*fd, 64);
}

static void serve(int connection) {
    char request[4096];
    if (read(connection, request, sizeof request) > 0)
        write(connection, ANSWER, sizeof ANSWER - 1);
    close(connection);
}

int main(void) {
    struct address peer;
    int listener, connection, error = listening(&listener);
    if (error)
        return fprintf(stderr, "cannot listen: errno %d\n", error), 1;
    printf("listening on port %d\n", PORT);
    fflush(stdout);
    while (!(error = sock_accept(listener, 0, &connection, &peer)))
        serve(connection);
    return fprintf(stderr, "cannot accept: errno %d\n", error), 1;
}
