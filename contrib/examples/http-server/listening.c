/* An HTTP server as a module of plain WASI preview 1: io.containerd.wasmtime.v1, or runtimeClassName: wasmtime.
 *
 * It cannot open a listening socket, but is given one, by the annotation shimd.io/listen: tcp:8080. Such sockets are its
 * first descriptors, from 3; LISTEN_FDS is their number. clang --target=wasm32-wasi -O2 -o listening.wasm listening.c */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LISTENER = 3 };

static const char ANSWER[] = "HTTP/1.1 200 OK\r\n"
                             "Content-Type: text/plain\r\n"
                             "Content-Length: 24\r\n"
                             "Connection: close\r\n\r\n"
                             "hello from WebAssembly!\n";

static void serve(int connection) {
    char request[4096];
    if (read(connection, request, sizeof request) > 0)
        write(connection, ANSWER, sizeof ANSWER - 1);
    close(connection);
}

int main(void) {
    const char *sockets = getenv("LISTEN_FDS");
    if (!sockets || atoi(sockets) < 1)
        return fprintf(stderr, "no listening socket was given\n"), 1;
    printf("listening\n");
    fflush(stdout);
    for (;;) {
        int connection = accept(LISTENER, NULL, NULL);
        if (connection < 0)
            return perror("cannot accept"), 1;
        serve(connection);
    }
}
