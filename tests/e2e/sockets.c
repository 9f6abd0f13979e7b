/* What a module of WASI preview 1 can do with sockets that it was given: each line of a connection is a command, the
 * answer is a line. Several connections at a time, by poll(), none of them blocking. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FIRST = 3, MOST = 32 };
static struct pollfd polled[MOST];
static int count, given;

static void must(int ok, const char *what) {
    if (!ok) {
        fprintf(stderr, "%s: %s\n", what, strerror(errno));
        exit(1);
    }
}

static void add(int fd) {
    must(count < MOST, "too many");
    must(fcntl(fd, F_SETFL, O_NONBLOCK) == 0 && fcntl(fd, F_GETFL) & O_NONBLOCK, "fcntl");
    polled[count++] = (struct pollfd){.fd = fd, .events = POLLIN};
}

static void answer(int fd, const char *text) {
    must(send(fd, text, strlen(text), 0) == (ssize_t)strlen(text), "send");
}

static void note(int fd) {
    char line[64] = "no file\n";
    FILE *file = fopen("/data/note", "r");
    if (file) {
        must(fgets(line, sizeof line, file) != NULL, "fgets");
        fclose(file);
    }
    answer(fd, line);
}

static void kind(int fd) {
    struct stat found;
    must(fstat(fd, &found) == 0, "fstat");
    int is_socket = S_ISSOCK(found.st_mode), seeks = lseek(fd, 0, SEEK_CUR) != -1 || errno != ESPIPE;
    answer(fd, is_socket && !seeks ? "socket\n" : "something else\n");
}

/* A poll that nothing ends but its time. */
static void nap(int fd) {
    struct pollfd quiet = {.fd = fd, .events = POLLIN};
    answer(fd, poll(&quiet, 1, 20) == 0 ? "slept\n" : "woken\n");
}

static void command(int fd, char *line) {
    char text[128];
    int code;
    if (!strcmp(line, "note"))
        note(fd);
    else if (!strcmp(line, "kind"))
        kind(fd);
    else if (!strcmp(line, "nap"))
        nap(fd);
    else if (!strcmp(line, "fd"))
        answer(fd, (snprintf(text, sizeof text, "%d\n", fd), text));
    else if (!strcmp(line, "half"))
        must(shutdown(fd, SHUT_WR) == 0, "shutdown");
    else if (sscanf(line, "exit %d", &code) == 1)
        exit(code);
    else
        answer(fd, (snprintf(text, sizeof text, "%s?\n", line), text));
}

/* 0: it is over. */
static int listen_to(int fd) {
    char line[256];
    ssize_t size = recv(fd, line, 1, MSG_PEEK);
    if (size > 0)
        size = read(fd, line, sizeof line - 1);
    if (size <= 0)
        return 0;
    line[size] = 0;
    for (char *word = strtok(line, "\n"); word; word = strtok(NULL, "\n"))
        command(fd, word);
    return 1;
}

static void accept_all(int listener) {
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0)
        add(fd);
    must(errno == EAGAIN, "accept");
}

int main(void) {
    const char *sockets = getenv("LISTEN_FDS");
    given = sockets ? atoi(sockets) : 0;
    for (int fd = FIRST; fd < FIRST + given; fd++)
        add(fd);
    printf("given %d\n", given);
    fflush(stdout);
    while (poll(polled, count, -1) >= 0)
        for (int i = 0; i < count; i++) {
            if (!polled[i].revents)
                continue;
            if (i < given)
                accept_all(polled[i].fd);
            else if (!listen_to(polled[i].fd)) {
                close(polled[i].fd);
                polled[i] = polled[--count];
                break;
            }
        }
    perror("poll");
    return 1;
}
