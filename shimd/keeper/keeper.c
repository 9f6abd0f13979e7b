/* The keeper: what must outlive the supervisor is here, and nothing else, so that there is little that can go wrong. It
 * holds descriptors by name, is the parent of fork servers, and of their children when they die, and keeps exits until
 * a supervisor has them; where nothing else starts the supervisor again, it does. protocol/keeper.py has the protocol,
 * supervisor/recovery/keeper.py starts it, and has the other end of its socket.
 *
 *     shimd-keeper    with descriptor 3 the listening socket, and no more than 0 to 2 beside it
 *
 * One loop, which waits in ppoll(2) only. Requests are not read while there is something to be said, so that one answer
 * at a time needs no memory. All of its descriptors are close-on-exec but 0 to 2. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "protocol.h"

struct packet {
    uint32_t kind, id;
    int64_t number[4];
    char name[MAX_NAME];
};
#define HEAD offsetof(struct packet, name)

/* A packet with its descriptors, which belong to who has it. */
struct message {
    struct packet packet;
    size_t length; /* of the name */
    int fds[MAX_FDS], count;
    bool cut; /* there was no room for its descriptors */
};

struct entry {
    struct entry *next;
    size_t length;
    int count, fds[]; /* and the name behind them */
};

struct exit {
    pid_t pid; /* 0: acknowledged */
    int status;
    uint64_t start;
    int64_t at;
};

enum { BUCKETS = 1024, SPARES = 3 };
/* Milliseconds: pauses before a start; a life after which they do not grow, and one in which news are made use of. */
enum { SHORTEST = 100, LONGEST = 5000, STEADY = 2000, HEARD = 10000 };

static int supervisor = -1, candidate = -1; /* connections: of who has said HELLO, and of who has yet to */
static bool foreign, gone, quitting, removes, handed_over, childless, begun;
static struct rlimit inherited;

/* ---- small things ------------------------------------------------------------------------------------------------- */

static int64_t now(clockid_t clock, int64_t unit) {
    struct timespec time;
    clock_gettime(clock, &time);
    return (int64_t)time.tv_sec * (1000000000 / unit) + time.tv_nsec / unit;
}

static int64_t milliseconds(void) { return now(CLOCK_MONOTONIC, 1000000); }

static void close_all(const int *fds, int count) {
    for (int i = 0; i < count; i++) close(fds[i]);
}

/* Descriptors for two connections and for /proc, taken while there are some: who is out of them can still be told so. */
static int spares[SPARES] = {-1, -1, -1};

static void refill(void) {
    for (int i = 0; i < SPARES; i++)
        if (spares[i] < 0) spares[i] = fcntl(0, F_DUPFD_CLOEXEC, 0);
}

static void spend(void) {
    for (int i = 0; i < SPARES; i++)
        if (spares[i] >= 0) {
            close(spares[i]);
            spares[i] = -1;
            return;
        }
}

/* Field 22 of /proc/PID/stat; 0: there is no memory to learn of it. */
static uint64_t start_time(pid_t pid) {
    char text[1024];
    snprintf(text, sizeof text, "/proc/%d/stat", (int)pid);
    spend();
    int fd = open(text, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    if (fd >= 0) close(fd);
    refill();
    text[size > 0 ? size : 0] = '\0';
    const char *at = strrchr(text, ')');
    for (int field = 3; at && field <= 22; field++) at = strchr(at + 1, ' ');
    return at ? strtoull(at, NULL, 10) : 0;
}

/* ---- names -------------------------------------------------------------------------------------------------------- */

static struct entry *table[BUCKETS];
static size_t names;

static char *name_of(struct entry *entry) { return (char *)(entry->fds + entry->count); }

/* What points to the entry, or to where it would be. */
static struct entry **find(const char *name, size_t length) {
    uint32_t hash = 2166136261;
    for (size_t i = 0; i < length; i++) hash = (hash ^ (unsigned char)name[i]) * 16777619;
    struct entry **place = &table[hash % BUCKETS];
    while (*place && ((*place)->length != length || memcmp(name_of(*place), name, length))) place = &(*place)->next;
    return place;
}

static void drop(struct entry **place) {
    struct entry *entry = *place;
    if (entry == NULL) return;
    *place = entry->next;
    close_all(entry->fds, entry->count);
    free(entry);
    names--;
}

/* 0, and they are the table's then, or an error. */
static int keep(const struct message *message) {
    size_t size = sizeof(int) * (size_t)message->count;
    struct entry *entry = malloc(sizeof *entry + size + message->length);
    if (entry == NULL) return ENOMEM;
    struct entry **place = find(message->packet.name, message->length);
    drop(place);
    *entry = (struct entry){.next = *place, .length = message->length, .count = message->count};
    memcpy(entry->fds, message->fds, size);
    memcpy(name_of(entry), message->packet.name, message->length);
    *place = entry;
    names++;
    return 0;
}

/* Holds FIFOs open, the first of them for reading, too: descriptors of their paths (O_PATH) become such of theirs. What
 * can be opened is; 0, or the first error: ENXIO says that nobody reads. */
static int reopen(struct message *message) {
    int opened[MAX_FDS], count = 0, error = 0;
    for (int i = 0; i < message->count; i++) {
        char path[32];
        snprintf(path, sizeof path, "/proc/self/fd/%d", message->fds[i]);
        int access = i < message->packet.number[0] ? O_RDWR : O_WRONLY;
        int fd = open(path, access | O_NONBLOCK | O_CLOEXEC);
        if (fd >= 0) opened[count++] = fd;
        else if (!error) error = errno;
    }
    close_all(message->fds, message->count);
    memcpy(message->fds, opened, sizeof(int) * (size_t)count);
    message->count = count;
    return error;
}

/* ---- children ----------------------------------------------------------------------------------------------------- */

struct command {
    void *memory;
    size_t size;
    uint32_t *targets;
    char **arguments, **variables;
};

static char **words(char **into, uint32_t count, char **at, const char *end) {
    for (uint32_t i = 0; i < count; i++) {
        if (*at >= end) return NULL;
        into[i] = *at;
        *at += strlen(*at) + 1;
    }
    return into + count + 1; /* the rest is zero */
}

/* encode_command in protocol/keeper.py */
static int load(struct command *command, int file, uint32_t fds) {
    uint32_t counts[3];
    struct stat status;
    if (fstat(file, &status) != 0) return errno;
    if (!S_ISREG(status.st_mode) || status.st_size > MAX_COMMAND) return EINVAL;
    size_t size = (size_t)status.st_size, begin = sizeof counts + sizeof(uint32_t) * fds;
    if (pread(file, counts, sizeof counts, 0) != sizeof counts || begin > size) return EINVAL;
    if (counts[0] == 0 || counts[0] > size || counts[1] > size || counts[2] != fds) return EINVAL;
    size_t pointers = sizeof(char *) * (counts[0] + counts[1] + 2);
    command->size = pointers + size + 1;
    command->memory = mmap(NULL, command->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (command->memory == MAP_FAILED) return errno;
    char *text = (char *)command->memory + pointers, *at = text + begin;
    bool whole = pread(file, text, size, 0) == (ssize_t)size;
    command->targets = (uint32_t *)(text + sizeof counts);
    command->arguments = command->memory;
    command->variables = words(command->arguments, counts[0], &at, text + size);
    if (whole && command->variables && words(command->variables, counts[1], &at, text + size)) return 0;
    munmap(command->memory, command->size);
    return EINVAL;
}

/* In the child, whose memory is ours: it changes nothing but its own descriptors and signals. */
__attribute__((noreturn)) static void become(const struct command *command, const int *fds, int count, volatile int *error) {
    struct sigaction usual = {.sa_handler = SIG_DFL};
    uint32_t above = LISTEN;
    int moved[MAX_FDS];
    sigset_t none;
    for (int i = 0; i < BUCKETS; i++) /* room, where there is none */
        for (const struct entry *entry = table[i]; entry; entry = entry->next) close_all(entry->fds, entry->count);
    for (int i = 0; i < count; i++)
        if (command->targets[i] > above) above = command->targets[i];
    for (int i = 0; i < count; i++)
        if (above > INT16_MAX || (moved[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, (int)above + 1)) < 0) goto failed;
    for (int i = 0; i < count; i++)
        if (dup2(moved[i], (int)command->targets[i]) < 0) goto failed;
    setsid();
    setrlimit(RLIMIT_NOFILE, &inherited);
    for (int number = 1; number < NSIG; number++) sigaction(number, &usual, NULL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execve(command->arguments[0], command->arguments, command->variables);
failed:
    *error = errno ? errno : EINVAL;
    _exit(127);
}

/* A command's file, and its descriptors: 0, or an error. */
static int spawn(const int *fds, int count, pid_t *pid) {
    struct command command;
    volatile int error = count < 1 ? EINVAL : load(&command, fds[0], (uint32_t)count - 1);
    if (error) return error;
    errno = 0;
    *pid = vfork();
    if (*pid == 0) become(&command, fds + 1, count - 1, &error);
    if (*pid < 0) error = errno;
    else if (error) waitpid(*pid, NULL, 0);
    munmap(command.memory, command.size);
    return error;
}

static struct exit exits[MAX_EXITS];
static size_t first, told, next; /* they only grow; the oldest that is kept, the one to be told, the one to come */
static int64_t told_at;          /* milliseconds */

static struct exit *exit_at(size_t index) { return &exits[index % MAX_EXITS]; }

static void acknowledge(pid_t pid, uint64_t start) {
    for (size_t i = first; pid && i < next; i++)
        if (exit_at(i)->pid == pid && exit_at(i)->start == start) exit_at(i)->pid = 0;
    while (first < next && !exit_at(first)->pid) first++;
    if (told < first) told = first;
}

static void note(struct exit exit) {
    *exit_at(next++) = exit;
    if (next - first > MAX_EXITS) first++;
    if (told < first) told = first;
}

/* ---- the supervisor's next life ----------------------------------------------------------------------------------- */

static int again[MAX_FDS], parts; /* of the last HELLO: a command's file, and its descriptors */
static pid_t started;               /* the supervisor, if we started it, until it is reaped */
static int64_t began, pause_before, restart_at; /* milliseconds; 0: no restart is to come */

static void schedule(void) {
    int64_t at = milliseconds();
    if (!parts || quitting) return;
    pause_before = at - began > STEADY || !pause_before ? SHORTEST : 2 * pause_before;
    if (pause_before > LONGEST) pause_before = LONGEST;
    restart_at = at + pause_before;
}

static void restart_if_due(void) {
    if (!restart_at || milliseconds() < restart_at) return;
    restart_at = 0;
    if (started) { /* its connection has ended, and it has not yet */
        restart_at = milliseconds() + SHORTEST;
        return;
    }
    began = milliseconds();
    if (spawn(again, parts, &started) == 0) return;
    started = 0;
    schedule();
}

static void forget_command(void) {
    close_all(again, parts);
    parts = 0;
    restart_at = 0;
}

/* ---- what is said ------------------------------------------------------------------------------------------------- */

static struct packet answer;
static size_t answer_length;
static bool answering, listing;
static size_t bucket;         /* of the list: where it has come to */
static struct entry *listed;  /* the last one there */
static int64_t hold_until;    /* the kernel has no memory, or no descriptors: until then nothing of that is tried */

static void hold(void) { hold_until = milliseconds() + SHORTEST; }

static bool put(int sock, const struct packet *packet, size_t length, const int *fds, int count) {
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int) * MAX_FDS)];
    } control;
    size_t size = sizeof(int) * (size_t)count;
    struct iovec data[] = {{(void *)packet, HEAD}, {(void *)packet->name, length}};
    struct msghdr message = {.msg_iov = data, .msg_iovlen = 2};
    if (count) {
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(size);
        memset(&control, 0, message.msg_controllen);
        control.header = (struct cmsghdr){.cmsg_len = CMSG_LEN(size), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
        memcpy(CMSG_DATA(&control.header), fds, size);
    }
    if (sendmsg(sock, &message, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0) return true;
    if (errno == EPIPE || errno == ECONNRESET) return gone = true; /* what it said before is still read */
    if (errno != EAGAIN && errno != EINTR) hold();
    return false;
}

static bool put_entry(struct entry *entry) {
    struct packet packet = {.kind = KEPT};
    memcpy(packet.name, name_of(entry), entry->length);
    return put(supervisor, &packet, entry->length, entry->fds, entry->count);
}

/* Say what there is to say; false: there is more, for when it can be said. */
static bool flush(void) {
    if (answering && !put(supervisor, &answer, answer_length, NULL, 0)) return false;
    answering = false;
    while (listing && !gone && bucket < BUCKETS) {
        struct entry *entry = listed ? listed->next : table[bucket];
        if (entry && !put_entry(entry)) return false;
        listed = entry;
        if (!entry) bucket++;
    }
    for (; told < next && (listing || !foreign || handed_over) && !gone; told++, told_at = milliseconds()) {
        const struct exit *exit = exit_at(told);
        struct packet packet = {.kind = EXITED, .number = {exit->pid, (int64_t)exit->start, exit->status, exit->at}};
        if (exit->pid && !put(supervisor, &packet, 0, NULL, 0)) return false;
    }
    if (listing && !gone && !put(supervisor, &(struct packet){.kind = LISTED}, 0, NULL, 0)) return false;
    listing = false;
    return true;
}

static void reap(void) {
    for (;;) {
        siginfo_t info = {0};
        struct exit exit = {0};
        childless = waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) != 0 && errno == ECHILD;
        if (childless || !info.si_pid) return;
        exit.at = now(CLOCK_REALTIME, 1);
        exit.start = start_time(info.si_pid); /* before it is reaped: then there is no /proc/PID */
        exit.pid = waitpid(info.si_pid, &exit.status, 0);
        if (exit.pid <= 0) return;
        if (exit.pid != started) {
            note(exit);
            if (supervisor >= 0) flush(); /* before many more push it out */
        } else {
            started = 0;
            if (supervisor < 0 && !restart_at) schedule();
        }
    }
}

static void say(uint32_t kind, uint32_t id, int64_t one, int64_t two) {
    answer = (struct packet){.kind = kind, .id = id, .number = {one, two}};
    answer_length = 0;
    answering = true;
}

static void fail(const struct message *message, int error) {
    say(FAILED, message->packet.id, error, 0);
    memcpy(answer.name, message->packet.name, answer_length = message->length);
}

/* ---- what is heard ------------------------------------------------------------------------------------------------ */

/* 1: a message; 0: none now; -1: the connection has ended, or should. */
static int receive(int sock, struct message *message) {
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int) * MAX_FDS)];
    } control;
    struct iovec data = {&message->packet, HEAD + MAX_NAME};
    struct msghdr got = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t size = recvmsg(sock, &got, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (size < 0) {
        /* ECONNRESET: it has not read all that we said. What it said comes after that. */
        if (errno != EAGAIN && errno != EINTR && errno != ECONNRESET) hold();
        return 0;
    }
    const struct cmsghdr *header = CMSG_FIRSTHDR(&got);
    message->count = 0;
    if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
        message->count = (int)((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(message->fds, CMSG_DATA(header), sizeof(int) * (size_t)message->count);
    }
    message->cut = got.msg_flags & MSG_CTRUNC;
    if (message->cut || (size_t)size < HEAD || got.msg_flags & MSG_TRUNC) {
        close_all(message->fds, message->count);
        message->count = 0;
    }
    if ((size_t)size < HEAD || got.msg_flags & MSG_TRUNC) return -1;
    message->length = (size_t)size - HEAD;
    return 1;
}

/* Whom we have started is not who came: it waits for that one's end, to be the next, and would be of a release that an
 * upgrade has replaced. */
static void end_rival(void) {
    struct ucred peer = {0};
    socklen_t size = sizeof peer;
    if (started && getsockopt(supervisor, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.pid != started) kill(started, SIGTERM);
}

/* Returns whether the descriptors are ours now. */
static bool hello(const struct message *message) {
    bool restarts = message->packet.number[1] == RESTARTS;
    end_rival();
    foreign = message->packet.number[0] != PROTOCOL;
    quitting = removes = handed_over = false;
    began = milliseconds();
    restart_at = 0;
    say(HELLO, message->packet.id, PROTOCOL, getpid());
    answer.number[2] = message->cut ? EMFILE : 0;
    if (foreign || message->cut) return false; /* the command that there is stays */
    forget_command();
    if (!restarts) return false;
    memcpy(again, message->fds, sizeof(int) * (size_t)message->count);
    parts = message->count;
    return true;
}

static void quit(const struct packet *packet) {
    quitting = true;
    removes = packet->number[0] == REMOVES;
    handed_over = packet->number[0] == HANDS_OVER;
    forget_command();
    for (size_t i = 0; i < BUCKETS; i++)
        while (table[i]) drop(&table[i]);
}

/* false: it is no request. */
static bool take(struct message *message) {
    const struct packet *packet = &message->packet;
    bool kept = false, known = !foreign || (packet->kind >= HELLO && packet->kind <= QUIT);
    int error = message->cut ? EMFILE : 0;
    pid_t pid = 0;
    switch (known ? packet->kind : 0) {
    case HELLO: kept = hello(message); break;
    case LIST:
        listing = true;
        bucket = 0;
        listed = NULL;
        told = first;
        break;
    case QUIT: quit(packet); break;
    case KEEP:
        if (!error) error = keep(message);
        if (error) fail(message, error);
        kept = !error;
        break;
    case HOLD:
        if (!error) error = reopen(message);
        if (!error || error == ENXIO) { /* else what there was stays */
            int failed = keep(message);
            kept = !failed;
            if (failed) error = failed;
        }
        say(HELD, packet->id, error, 0);
        break;
    case DROP: drop(find(packet->name, message->length)); break;
    case SPAWN:
        if (!error) error = spawn(message->fds, message->count, &pid);
        if (error) fail(message, error);
        else say(SPAWNED, packet->id, pid, (int64_t)start_time(pid));
        break;
    case ACKNOWLEDGE: acknowledge((pid_t)packet->number[0], (uint64_t)packet->number[1]); break;
    default: known = false;
    }
    if (!kept) close_all(message->fds, message->count);
    return known;
}

static void part(void) {
    close(supervisor);
    supervisor = -1;
    gone = answering = listing = foreign = false;
    refill();
    schedule();
}

static void serve(void) {
    struct message message;
    while (flush()) {
        int got = receive(supervisor, &message);
        if (got == 0) return;
        if (got > 0 && take(&message)) continue;
        part();
        return;
    }
}

/* Whoever says HELLO is the supervisor, unless there is one. */
static void greet(void) {
    struct message message;
    int got = receive(candidate, &message), sock = candidate;
    if (got == 0) return;
    candidate = -1;
    if (got > 0 && message.packet.kind == HELLO && supervisor < 0) {
        supervisor = sock;
        take(&message);
        return;
    }
    if (got > 0) {
        put(sock, &(struct packet){.kind = FAILED, .number = {supervisor < 0 ? EPROTO : EBUSY}}, 0, NULL, 0);
        gone = false;
        close_all(message.fds, message.count);
    }
    close(sock);
}

/* One at a time, the newest: who connects and says nothing is in nobody's way. */
static void admit(void) {
    struct ucred peer = {0};
    socklen_t size = sizeof peer;
    int sock = accept4(LISTEN, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (sock < 0 && errno != EAGAIN) {
        spend();
        sock = accept4(LISTEN, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (sock < 0 && errno != EAGAIN) hold();
    }
    if (sock < 0) return;
    begun = true;
    if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0 || peer.uid != geteuid()) {
        close(sock);
        return;
    }
    if (candidate >= 0) close(candidate);
    candidate = sock;
}

/* ---- the loop ----------------------------------------------------------------------------------------------------- */

/* Who was told of the last exit has lived long enough to make use of it. */
static bool heard(void) {
    return first == next || (supervisor >= 0 && told == next && milliseconds() >= told_at + HEARD);
}

/* Asked to, or of no use to anybody. */
static bool finished(void) {
    bool alone = supervisor < 0 && candidate < 0 && !parts && !names && first == next;
    return childless && ((quitting && (!handed_over || heard())) || (begun && alone));
}

static void leave(void) {
    struct sockaddr_un address = {0};
    socklen_t size = sizeof address;
    if (removes && getsockname(LISTEN, (struct sockaddr *)&address, &size) == 0) unlink(address.sun_path);
}

static volatile sig_atomic_t terminated;

static void on_child(int number) { (void)number; }

static void on_term(int number) { terminated = number; }

/* The node goes down, and waits for each process to end that was told to: nobody will come for what is kept. Where a
 * supervisor is there, or is to be started, it is for that one to say. */
static bool ends_with_node(void) {
    bool ends = terminated && supervisor < 0 && !parts;
    terminated = 0;
    return ends;
}

static void prepare(sigset_t *waiting) {
    static const int others[] = {SIGHUP, SIGINT, SIGQUIT, SIGPIPE, SIGALRM, SIGUSR1, SIGUSR2, SIGTSTP, SIGTTIN, SIGTTOU};
    struct sigaction ignored = {.sa_handler = SIG_IGN}, child = {.sa_handler = on_child, .sa_flags = SA_NOCLDSTOP};
    struct sigaction term = {.sa_handler = on_term};
    sigset_t set;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) sigaction(others[i], &ignored, NULL);
    sigaction(SIGCHLD, &child, NULL);
    sigaction(SIGTERM, &term, NULL);
    sigemptyset(waiting);
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_SETMASK, &set, NULL);
    getrlimit(RLIMIT_NOFILE, &inherited);
    setrlimit(RLIMIT_NOFILE, &(struct rlimit){inherited.rlim_max, inherited.rlim_max});
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    if (syscall(SYS_close_range, LISTEN + 1, ~0U, 0) != 0)
        for (int fd = LISTEN + 1; fd < 65536; fd++) close(fd); /* a kernel before 5.9 */
    fcntl(LISTEN, F_SETFD, FD_CLOEXEC);
    fcntl(LISTEN, F_SETFL, O_NONBLOCK);
}

int main(void) {
    sigset_t waiting;
    prepare(&waiting);
    if (listen(LISTEN, 8) != 0) return 1; /* once more, so that SO_PEERCRED tells our pid, not our parent's */
    for (;;) {
        refill();
        reap();
        restart_if_due();
        if (finished() || ends_with_node()) break;
        bool more = supervisor >= 0 && !flush();
        bool listens = quitting && handed_over && childless && supervisor >= 0 && told == next;
        int64_t at = milliseconds(), until = listens ? told_at + HEARD : restart_at;
        bool held = hold_until > at;
        if (held && (!until || hold_until < until)) until = hold_until;
        struct timespec limit = {until > at ? (until - at) / 1000 : 0, until > at ? (until - at) % 1000 * 1000000 : 0};
        struct pollfd polled[] = {
            {held ? -1 : supervisor, more ? POLLOUT : POLLIN, 0}, {candidate, POLLIN, 0}, {held ? -1 : LISTEN, POLLIN, 0}};
        if (ppoll(polled, 3, until ? &limit : NULL, &waiting) <= 0) continue;
        if (polled[0].revents) serve();
        if (polled[1].revents) greet();
        if (polled[2].revents) admit();
    }
    leave();
    return 0;
}
