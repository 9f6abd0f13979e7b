/* A container's files for engines whose WASI is not ours, and which have no switch for what follows.
 *
 * wasmtime. Links: it opens everything by openat2 with RESOLVE_BENEATH, for which a link that leads out of the directory that a path
 * is relative to is EXDEV, as each absolute one is, though the root it leads to is the container's own, which the guest has
 * whole. Read-only mounts: it has no word for EROFS, and takes it for a disk that fails.
 *
 * So these system calls are trapped (SECCOMP_RET_TRAP) and made again. What is EXDEV then, by a link and not by the path's
 * own words, is opened as the kernel does for any program, but by no magic link of /proc. What is EROFS is EACCES (EPERM it
 * takes for a filter that knows no openat2, and goes another way). What a profile of the container's says holds for the
 * calls made here. wasi/filesystem.py has the same for our own WASI.
 *
 * WasmEdge follows links itself, part by part, and knows no absolute ones. So it is told a relative path to the same place,
 * up from where the link is. It is known by the size of its buffer: a guest that reads a link has another.
 */
#define _GNU_SOURCE
#include "contained.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#if defined __x86_64__
#define ARCHITECTURE AUDIT_ARCH_X86_64
#define REGISTER(context, name, index) ((context)->uc_mcontext.gregs[REG_##name])
#elif defined __aarch64__
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#define REGISTER(context, name, index) ((context)->uc_mcontext.regs[index])
#endif

enum { OPENAT2 = 437, NO_MAGICLINKS = 0x02, BENEATH = 0x08 }; /* <linux/openat2.h> */
enum { BY_SECCOMP = 1 };                                       /* SYS_SECCOMP of <asm-generic/siginfo.h> */

enum { ITS_BUFFER = 16384 }; /* of WasmEdge's VINode::resolvePath */

/* The sixth argument of our own calls, which have none, by which the filter knows them. */
enum { OURS = 0x51a3d };

struct how { uint64_t flags, mode, resolve; };

int shimd_leads_out(const char *path) {
    long depth = 0;
    if (*path == '/') return 1;
    for (;;) {
        const char *part = path;
        while (*path && *path != '/') path++;
        long length = path - part;
        if (length == 2 && part[0] == '.' && part[1] == '.') depth--;
        else if (length > 1 || (length == 1 && *part != '.')) depth++;
        if (depth < 0) return 1;
        if (!*path++) return 0;
    }
}

#ifdef ARCHITECTURE
static long again(long number, long a, long b, long c, long d, long e) {
    long result = syscall(number, a, b, c, d, e, (long)OURS);
    return result < 0 ? -errno : result;
}

static long by_links(long directory, const char *path, const struct how *theirs) {
    struct how how = {theirs->flags, theirs->mode, (theirs->resolve & ~(uint64_t)BENEATH) | NO_MAGICLINKS};
    return again(OPENAT2, directory, (long)path, (long)&how, sizeof how, 0);
}

/* Where it is, from the directory that it is in; if there is no /proc to tell, it stays as it is. */
static long relative(long directory, char *link, long length) {
    char name[32] = "/proc/self/fd/", path[4096];
    long end = 14, depth = 0, skip = 0;
    for (long power = 1000000000; power; power /= 10)
        if (directory >= power || power == 1) name[end++] = (char)('0' + directory / power % 10);
    long known = again(SYS_readlinkat, AT_FDCWD, (long)name, (long)path, sizeof path, 0);
    if (known <= 0 || known == sizeof path || path[0] != '/') return length;
    for (long at = 0; known > 1 && at < known; at++) depth += path[at] == '/';
    while (skip < length && link[skip] == '/') skip++;
    if (3 * depth + length - skip + 1 > ITS_BUFFER) return length;
    memmove(link + 3 * depth, link + skip, (size_t)(length - skip));
    for (long at = 0; at < depth; at++) memcpy(link + 3 * at, "../", 3);
    length += 3 * depth - skip;
    if (length == 0) link[length++] = '.';
    return length;
}

static void trapped(int signal, siginfo_t *information, void *interrupted) {
    ucontext_t *context = interrupted;
    int error = errno, number = information->si_syscall;
    if (information->si_code != BY_SECCOMP) _exit(128 + signal); /* as anybody's */
    long a = (long)REGISTER(context, RDI, 0), b = (long)REGISTER(context, RSI, 1), c = (long)REGISTER(context, RDX, 2),
         d = (long)REGISTER(context, R10, 3), e = (long)REGISTER(context, R8, 4);
    long result = again(number, a, b, c, d, e);
    if (number == OPENAT2 && result == -EXDEV && ((struct how *)c)->resolve & BENEATH && !shimd_leads_out((char *)b))
        result = by_links(a, (char *)b, (struct how *)c);
    if (number == SYS_readlinkat && result > 0 && *(char *)c == '/') result = relative(a, (char *)c, result);
    REGISTER(context, RAX, 0) = result == -EROFS ? -EACCES : result;
    errno = error;
}

/* A jump to the end but one, if it is that call. */
#define CALL(number, left) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, left, 0)

static int install(struct sock_filter *filter, unsigned short count) {
    struct sock_fprog program = {count, filter};
    struct sigaction action = {.sa_sigaction = trapped, .sa_flags = SA_SIGINFO | SA_RESTART};
    if (sigaction(SIGSYS, &action, NULL) != 0) return errno;
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0 ? 0 : errno;
}

int shimd_contained_wasmedge(void) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 0, 5),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_readlinkat, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[3])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ITS_BUFFER, 0, 1),
        BPF_JUMP(BPF_JMP | BPF_JA, 1, 0, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[5])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, OURS, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
    };
    return install(filter, sizeof filter / sizeof *filter);
}

int shimd_contained(void) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 0, 9),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        CALL(OPENAT2, 8),
        CALL(SYS_mkdirat, 7),
        CALL(SYS_unlinkat, 6),
        CALL(SYS_renameat, 5),
        CALL(SYS_renameat2, 4),
        CALL(SYS_linkat, 3),
        CALL(SYS_symlinkat, 2),
        CALL(SYS_utimensat, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[5])), /* the low word: little endian */
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, OURS, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
    };
    return install(filter, sizeof filter / sizeof *filter);
}
#else
int shimd_contained(void) { return ENOSYS; }
int shimd_contained_wasmedge(void) { return ENOSYS; }
#endif
