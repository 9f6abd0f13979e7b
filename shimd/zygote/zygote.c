/* The zygote: forks workers that need no Python. It has never run any, so that there is little to copy at a fork, and
 * once the engine is made it only runs this loop, so that the memory which its workers share with it is not written to.
 * forkserver/zygote.py starts it, and has the other end of its socket; what a worker needs of an engine is in engine.h.
 *
 *     _zygote LIBRARY [ARGUMENT...]    with descriptor 3 a socket: 8 bytes of zero say that it can fork
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include "../engines/engine.h"
#include "protocol.h"

/* A request is its flags: with it come stdin, stdout, stderr, control, and as they say a cgroup's directory and a pid
 * namespace. The worker gets all else by control: ``Enter`` (protocol/worker.py). */

struct clone_arguments {
    uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup;
};

/* protocol/system_calls.py */
struct call {
    uint64_t number, argument[6], policy;
    const char *packet;
};
struct calls {
    uint64_t count;
    const struct call *call;
};
_Static_assert(sizeof(struct call) == CALL_WORDS * sizeof(uint64_t), "protocol/constants.py has another size");

/* A packet of up to three parts. By sendmsg, as in Python: a container's filter may allow no other. */
static void say(const char *first, const char *second, const char *third) {
    struct iovec parts[] = {
        {(void *)first, strlen(first)}, {(void *)second, strlen(second)}, {(void *)third, strlen(third)}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 3};
    (void)sendmsg(CONTROL, &message, MSG_NOSIGNAL);
}

/* The length without a character of UTF-8 that is cut off at the end. */
static size_t whole(const char *text, size_t length) {
    size_t at = length;
    while (at > 0 && ((unsigned char)text[at - 1] & 0xc0) == 0x80) at--;
    if (at == 0 || (unsigned char)text[at - 1] < 0xc0) return length;
    unsigned char first = (unsigned char)text[at - 1];
    size_t wanted = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    return length - (at - 1) == wanted ? length : at - 1;
}

/* An engine's own sentence, as a JSON string. */
static void fail(int code, const char *message) {
    char packet[8192];
    size_t at = (size_t)snprintf(packet, sizeof packet, SAYS_ERROR, code);
    for (; *message && at < sizeof packet - 16; message++) {
        unsigned char c = (unsigned char)*message;
        if (c == '"' || c == '\\') packet[at++] = '\\';
        packet[at++] = c < ' ' ? ' ' : (char)c;
    }
    packet[whole(packet, at)] = '\0';
    say(packet, SAYS_END, "");
    _exit(FAILED);
}

/* linux/packed.py */
static void *unpack(int fd) {
    struct stat status;
    if (fstat(fd, &status) != 0) return NULL;
    uint64_t *words = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    if (words == MAP_FAILED) return NULL;
    char *root = (char *)(words + 2 + words[1]);
    for (uint64_t i = 0; i < words[1]; i++) *(uint64_t *)(root + words[2 + i]) += (uint64_t)(uintptr_t)root;
    return root;
}

static int open_at(const uint64_t *argument) {
    int fd = open((const char *)(uintptr_t)argument[0], (int)argument[1] | O_CLOEXEC);
    if (fd < 0) return -1;
    if (fd != (int)argument[2]) {
        if (dup3(fd, (int)argument[2], O_CLOEXEC) < 0) return -1;
        close(fd);
    }
    return 0;
}

static int bound(uint64_t keep, uint64_t last) {
    for (uint64_t number = 0; number <= last; number++)
        if (!(keep >> number & 1) && prctl(PR_CAPBSET_DROP, number, 0, 0, 0) != 0) return -1;
    return 0;
}

/* As shimd/errors.py has it: in the case of Go's words. */
static const char *reason(int error) {
    static char words[128];
    snprintf(words, sizeof words, "%s", strerror(error));
    words[0] = (char)tolower((unsigned char)words[0]);
    return words;
}

static int excused(uint64_t policy, int error) {
    return policy == POLICY_TRY || (policy == POLICY_IF_THERE && (error == ENOENT || error == ENOTDIR));
}

/* <linux/landlock.h>; the number is every machine's. */
enum { LANDLOCK_ADD_RULE = 445, PATH_BENEATH = 1 };

/* The directories of the cache that have the program: these descriptors, none once it is loaded. Before them stand those
 * that an application may read, from own on. */
struct entries {
    int own, first, end;
};

/* isolation/landlock.py: what is to be readable besides. */
static long allow(int ruleset, uint64_t access, const struct entries *entries) {
    long result = 0;
    for (int fd = entries->own; result == 0 && fd < entries->end; fd++) {
        struct { uint64_t access; int32_t parent; } __attribute__((packed)) rule = {access, fd};
        result = syscall(LANDLOCK_ADD_RULE, ruleset, PATH_BENEATH, &rule, 0);
    }
    return result;
}

static long make(const struct call *call, const struct entries *entries) {
    const uint64_t *a = call->argument;
    if (!(call->number >> 32)) return syscall((long)call->number, a[0], a[1], a[2], a[3], a[4], a[5]);
    switch ((uint32_t)call->number) {
    case CALL_OPEN: return open_at(a);
    case CALL_BOUND: return bound(a[0], a[1]);
    case CALL_READABLE: return allow((int)a[0], a[1], entries);
    default: errno = ENOSYS; return -1;
    }
}

static int is(const struct call *call, uint32_t which) {
    return call->number >> 32 && (uint32_t)call->number == which;
}

/* Up to the next pause, or the end; returns where to go on. */
static uint64_t take(const struct calls *calls, uint64_t at, const struct entries *entries) {
    for (; at < calls->count; at++) {
        const struct call *call = &calls->call[at];
        if (is(call, CALL_BARRIER) || is(call, CALL_LOAD)) return at + 1;
        long result = make(call, entries);
        int error = errno;
        if (result >= 0 || excused(call->policy, error)) continue;
        say(call->packet, reason(error), SAYS_END);
        if (call->policy != POLICY_WARN) _exit(FAILED);
    }
    return at;
}

/* With the numbers of the signals that it handles itself. */
static void ready(int handled) {
    char numbers[128] = "";
    for (int number = 1, at = 0; number < 32; number++)
        if (handled & 1 << (number - 1))
            at += snprintf(numbers + at, sizeof numbers - (size_t)at, "%s%d", at ? "," : "", number);
    say(SAYS_READY, numbers, SAYS_READY_END);
}

/* For process 1 of a pid namespace, whom the kernel spares a signal's default action (worker/main.py). */
static void die(int number) { _exit(128 + number); }

/* A packet with its descriptors; returns how many, or -1 at the end of the connection. */
static int receive(int sock, void *packet, size_t size, int *fds) {
    char control[CMSG_SPACE(sizeof(int) * MAX_FDS)];
    struct iovec data = {packet, size};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    if (recvmsg(sock, &message, MSG_CMSG_CLOEXEC) <= 0 || message.msg_flags & (MSG_CTRUNC | MSG_TRUNC)) return -1;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header == NULL || header->cmsg_type != SCM_RIGHTS) return 0;
    size_t length = header->cmsg_len - CMSG_LEN(0);
    memcpy(fds, CMSG_DATA(header), length);
    return (int)(length / sizeof(int));
}

/* Of ``Enter``: first entries, then own; -1: there is none. Not by sscanf(3), which a newer C library's headers make one
 * that an older has not. */
static int next_number(const char **text) {
    int number = 0;
    while (**text && !isdigit((unsigned char)**text)) ++*text;
    if (!**text) return -1;
    for (; isdigit((unsigned char)**text) && number <= MAX_FDS; ++*text) number = number * 10 + **text - '0';
    return number;
}

/* Make them this process's descriptors from first on, and close all others from there. */
static void arrange(const int *fds, int count, int first) {
    int high[MAX_FDS];
    for (int i = 0; i < count; i++)
        if ((high[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, HIGH)) < 0) _exit(FAILED);
    for (int i = 0; i < count; i++)
        if (dup3(high[i], first + i, first + i < CONTROL ? 0 : O_CLOEXEC) < 0) _exit(FAILED);
    if (syscall(SYS_close_range, first + count, ~0U, 0) == 0) return;
    for (int fd = first + count; fd < 65536; fd++) close(fd); /* a kernel before 5.9 */
}

/* By names relative to the directory that has the program; the parts of an application have one each. */
static void *load(
    const struct engine *engine, const void *block, struct entries *entries, int *code, char *sentence, size_t size) {
    int back = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (back < 0 || fchdir(entries->end - 1) != 0) {
        *code = INVALID_ARGUMENT;
        snprintf(sentence, size, "working directory: %s", reason(errno));
        return NULL;
    }
    void *program = engine->load(engine->context, block, code, sentence, size);
    if (fchdir(back) != 0) _exit(FAILED);
    close(back);
    while (entries->end > entries->first) close(--entries->end);
    return program;
}

static void work(const struct engine *engine, const int *streams_and_control) {
    char packet[64] = "", sentence[4096] = "";
    int fds[MAX_FDS], count, code = 0;
    sigset_t none;
    arrange(streams_and_control, JAIL, 0);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    count = receive(CONTROL, packet, sizeof packet - 1, fds) - 2;
    const char *told = packet;
    int directories = next_number(&told), own = next_number(&told);
    if (directories < 1 || own < 0 || count < directories + own) _exit(FAILED); /* it is not wanted any more */
    const void *block = unpack(fds[0]);
    const struct calls *calls = unpack(fds[1]);
    if (calls == NULL || block == NULL) _exit(FAILED);
    arrange(fds + 2, count, JAIL);
    void *program = NULL;
    int end = JAIL + count, first = end - directories;
    struct entries entries = {first - own, first, end};
    uint64_t at = take(calls, 0, &entries); /* what is to be done before all else */
    do {
        at = take(calls, at, &entries);
        if (program == NULL && (at == calls->count || is(&calls->call[at - 1], CALL_LOAD))) {
            program = load(engine, block, &entries, &code, sentence, sizeof sentence);
            if (program == NULL) fail(code, sentence);
        } else if (at < calls->count) { /* the container's hooks */
            say(SAYS_HELD, "", "");
            if (receive(CONTROL, packet, sizeof packet, fds) < 0) _exit(FAILED);
        }
    } while (at < calls->count);
    ready(code);
    if (receive(CONTROL, packet, sizeof packet, fds) < 0) _exit(FAILED); /* deleted before it was started */
    close(CONTROL);
    _exit(engine->run(program));
}

/* Where the C library keeps this thread's id: just before the list of robust futexes (linux/fork.py). */
static void *thread_id(void) {
    void *head = NULL;
    size_t length = 0;
    if (syscall(SYS_get_robust_list, 0, &head, &length) != 0 || head == NULL) return NULL;
    int *address = (int *)((char *)head - ROBUST_LIST);
    return *address == (int)syscall(SYS_gettid) ? address : NULL;
}

/* A worker, as a child of our parent's. */
static long spawn(const struct engine *engine, uint64_t flags, const int *fds) {
    const int *more = fds + JAIL;
    static int own = -1;
    void *id = thread_id();
    struct clone_arguments arguments = {.flags = CLONE_PARENT};
    if (id == NULL) return -ENOSYS;
    arguments.flags |= CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID;
    arguments.child_tid = (uint64_t)(uintptr_t)id;
    if (flags & NEW_PID) arguments.flags |= CLONE_NEWPID;
    if (flags & IN_CGROUP) {
        arguments.flags |= 0x200000000ULL; /* CLONE_INTO_CGROUP */
        arguments.cgroup = (uint64_t)*more++;
    }
    if (flags & JOIN_PID) {
        if (own < 0) own = open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC);
        if (own < 0 || setns(*more, CLONE_NEWPID) != 0) return -errno;
    }
    long pid = syscall(SYS_clone3, &arguments, sizeof arguments);
    if (pid == 0) {
        syscall(SYS_set_robust_list, (char *)id + ROBUST_LIST, ROBUST_HEAD);
        work(engine, fds);
    }
    int error = errno == EINVAL || errno == E2BIG ? ENOSYS : errno; /* a kernel before 5.7 */
    long result = pid < 0 ? -error : pid;
    if (flags & JOIN_PID && setns(own, CLONE_NEWPID) != 0) _exit(FAILED); /* of no use any more */
    return result;
}

static const struct engine *find_engine(int count, char *const arguments[]) {
    void *library = count > 1 ? dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL) : NULL;
    make_engine *make = library ? (make_engine *)dlsym(library, "shimd_engine") : NULL;
    const struct engine *engine = make ? make(count - 2, arguments + 2) : NULL;
    if (make == NULL) fprintf(stderr, "shimd: zygote: %s\n", count > 1 ? dlerror() : "no library is named");
    else if (engine == NULL) fprintf(stderr, "shimd: zygote: %s cannot work here\n", arguments[1]);
    return engine;
}

static int answer(int sock, int64_t result) { return send(sock, &result, sizeof result, MSG_NOSIGNAL) == sizeof result; }

int main(int argc, char *argv[]) {
    static const int deadly[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM};
    static const uint64_t usual[4]; /* the kernel's struct sigaction: SIG_DFL */
    uint64_t flags = 0;
    int fds[MAX_FDS];
    syscall(SYS_close_range, JAIL, ~0U, 0);
    prctl(PR_SET_NAME, "shimd-zygote");
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* it may be stopped when the fork server ends; workers do not inherit this */
    const struct engine *engine = find_engine(argc, argv);
    if (engine == NULL) return FAILED;
    for (int number = 32; number <= 33; number++) syscall(SYS_rt_sigaction, number, usual, NULL, 8); /* linux/spawn.py */
    for (size_t i = 0; i < sizeof deadly / sizeof *deadly; i++) signal(deadly[i], die);
    for (int64_t result = 0; answer(CONTROL, result);) {
        int count = receive(CONTROL, &flags, sizeof flags, fds);
        if (count == 0 && flags == PING) {
            result = 0;
            continue;
        }
        if (count < 0 || count != JAIL + !!(flags & IN_CGROUP) + !!(flags & JOIN_PID)) return 0;
        result = spawn(engine, flags, fds);
        for (int i = 0; i < count; i++) close(fds[i]);
    }
    return 0;
}
