/* Symbolic links in a container, for an engine whose WASI is not ours. wasmtime's opens everything by openat2 with
 * RESOLVE_BENEATH, and has no switch for it: a link that leads out of the directory that a path is relative to, as each
 * absolute one does, is EXDEV there, though the root it leads to is the container's own, which the guest has whole.
 *
 * So the system call is trapped (SECCOMP_RET_TRAP) and made again, as it was; only what is EXDEV then, by a link and not by
 * the path's own words, is opened as the kernel would for any program, but by no magic link of /proc. What a profile of the
 * container's says of openat2 holds for the calls made here. wasi/filesystem.py has the same for our own WASI.
 */
#define _GNU_SOURCE
#include "links.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
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
enum { BY_SECCOMP = 1 };                                       /* <asm-generic/siginfo.h>, SYS_SECCOMP */

/* <linux/openat2.h>, with a word of zeros, which the kernel takes: by its size the filter knows calls that are ours. */
struct how { uint64_t flags, mode, resolve, ours; };
enum { THEIRS = offsetof(struct how, ours) };

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
static long open_it(int directory, const char *path, const struct how *how) {
    long fd = syscall(OPENAT2, directory, path, how, sizeof *how);
    return fd < 0 ? -errno : fd;
}

static long opened(int directory, const char *path, const struct how *theirs) {
    struct how how = {theirs->flags, theirs->mode, theirs->resolve, 0};
    long result = open_it(directory, path, &how);
    if (result != -EXDEV || !(how.resolve & BENEATH) || shimd_leads_out(path)) return result;
    how.resolve = (how.resolve & ~(uint64_t)BENEATH) | NO_MAGICLINKS;
    return open_it(directory, path, &how);
}

static void trapped(int number, siginfo_t *information, void *interrupted) {
    ucontext_t *context = interrupted;
    int error = errno;
    if (information->si_code != BY_SECCOMP || information->si_syscall != OPENAT2) _exit(128 + number); /* not ours */
    REGISTER(context, RAX, 0) = opened(
        (int)REGISTER(context, RDI, 0), (const char *)REGISTER(context, RSI, 1), (const struct how *)REGISTER(context, RDX, 2));
    errno = error;
}

int shimd_follow_links(void) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, OPENAT2, 0, 5),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[3])), /* its low word: little endian */
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, THEIRS, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    struct sigaction action = {.sa_sigaction = trapped, .sa_flags = SA_SIGINFO | SA_RESTART};
    if (sigaction(SIGSYS, &action, NULL) != 0) return errno;
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0 ? 0 : errno;
}
#else
int shimd_follow_links(void) { return ENOSYS; }
#endif
