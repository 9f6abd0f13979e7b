/* What guests do with directories and files, on raw calls. */
#pragma once

#include "wasi.h"

typedef __wasi_fd_t fd_t;

#define O(name) __WASI_OFLAGS_##name
#define FD(name) __WASI_FDFLAGS_##name
#define FOLLOW __WASI_LOOKUPFLAGS_SYMLINK_FOLLOW

/* An open descriptor, which is none of stdio's. */
#define OPEN(dir, name, oflags, rights) opened(__FILE_NAME__, __LINE__, dir, name, oflags, rights, 0)
#define OPEN_WITH(dir, name, oflags, rights, fdflags) \
    opened(__FILE_NAME__, __LINE__, dir, name, oflags, rights, fdflags)
#define CREATE(dir, name) OK(__wasi_fd_close(OPEN(dir, name, O(CREAT), 0)))
#define CLOSE(fd) OK(__wasi_fd_close(fd))
#define MKDIR(dir, name) OK(__wasi_path_create_directory(dir, name))
#define RMDIR(dir, name) OK(__wasi_path_remove_directory(dir, name))
#define UNLINK(dir, name) OK(__wasi_path_unlink_file(dir, name))
#define SYMLINK(target, dir, name) OK(__wasi_path_symlink(target, dir, name))
#define FDSTAT(fd) \
    ({ \
        __wasi_fdstat_t fdstat; \
        OK(__wasi_fd_fdstat_get(fd, &fdstat)); \
        fdstat; \
    })
#define STAT(fd) \
    ({ \
        __wasi_filestat_t status; \
        OK(__wasi_fd_filestat_get(fd, &status)); \
        status; \
    })
#define STAT_AT(dir, flags, name) \
    ({ \
        __wasi_filestat_t status; \
        OK(__wasi_path_filestat_get(dir, flags, name, &status)); \
        status; \
    })

/* A main function that hands a new directory to a test, and removes it, which must be empty by then. */
#define ON_SCRATCH(test) \
    int main(void) \
    { \
        fd_t root = open_root(), dir = make_scratch(root); \
        test(dir); \
        CLOSE(dir); \
        RMDIR(root, "scratch"); \
    }
/* A main function that hands the preopened directory, opened afresh, to a test. */
#define ON_ROOT(test) \
    int main(void) \
    { \
        test(open_root()); \
    }

static inline fd_t opened(
    const char *file, int line, fd_t dir, const char *name, uint16_t oflags, uint64_t rights, uint16_t fdflags)
{
    fd_t fd = 0;
    char call[80];
    snprintf(call, sizeof call, "path_open of \"%s\"", name);
    outcome(file, line, call, __wasi_path_open(dir, 0, name, oflags, rights, 0, fdflags, &fd), (const uint16_t[]){0}, 1);
    CHECK(fd > 2);
    return fd;
}

/* path_open with no rights and no symbolic links followed, for its errors. */
static inline uint16_t try_open(fd_t dir, const char *name, uint16_t oflags)
{
    fd_t fd;
    return __wasi_path_open(dir, 0, name, oflags, 0, 0, 0, &fd);
}

static inline uint16_t get(fd_t fd, void *data, size_t size, __wasi_size_t *count)
{
    __wasi_iovec_t vector = {data, size};
    return __wasi_fd_read(fd, &vector, 1, count);
}

static inline uint16_t put(fd_t fd, const void *data, size_t size, __wasi_size_t *count)
{
    __wasi_ciovec_t vector = {data, size};
    return __wasi_fd_write(fd, &vector, 1, count);
}

/* How a guest comes by its directory: the first that is preopened as "/", with all its rights, as the originals do; or,
   as wasi-libc does, the last of that name, and not to be written to itself. */
#ifdef AS_WASI_LIBC
#define TAKE_LAST 1
#define NEEDLESS R(FD_WRITE)
#else
#define TAKE_LAST 0
#define NEEDLESS 0
#endif

/* Where the preopened directory of that name is. */
static inline fd_t find_preopen(const char *name)
{
    __wasi_prestat_t prestat;
    fd_t last = 0;
    for (fd_t fd = 3; __wasi_fd_prestat_get(fd, &prestat) == E(SUCCESS); fd++) {
        char found[64] = "";
        size_t length = prestat.u.dir.pr_name_len;
        if (prestat.tag != __WASI_PREOPENTYPE_DIR || length >= sizeof found)
            continue;
        OK(__wasi_fd_prestat_dir_name(fd, (uint8_t *)found, length));
        if (strcmp(found, name) != 0)
            continue;
        last = fd;
        if (!TAKE_LAST)
            break;
    }
    CHECK(last != 0);
    return last;
}

static inline fd_t open_root(void)
{
    fd_t preopen = find_preopen("/"), fd;
    __wasi_fdstat_t has = FDSTAT(preopen);
    uint64_t base = has.fs_rights_base & ~NEEDLESS;
    OK(__wasi_path_open(preopen, 0, ".", O(DIRECTORY), base, has.fs_rights_inheriting, 0, &fd));
    return fd;
}

static inline fd_t make_scratch(fd_t root)
{
    const uint64_t base = R(FD_FILESTAT_GET) | R(FD_READDIR) | R(PATH_CREATE_FILE) | R(PATH_CREATE_DIRECTORY) |
                          R(PATH_OPEN) | R(PATH_UNLINK_FILE) | R(PATH_REMOVE_DIRECTORY) | R(PATH_LINK_SOURCE) |
                          R(PATH_LINK_TARGET) | R(PATH_READLINK) | R(PATH_RENAME_SOURCE) | R(PATH_RENAME_TARGET) |
                          R(PATH_FILESTAT_GET) | R(PATH_FILESTAT_SET_SIZE) | R(PATH_FILESTAT_SET_TIMES) |
                          R(PATH_SYMLINK);
    const uint64_t inheriting = R(FD_READ) | R(FD_WRITE) | R(FD_SEEK) | R(FD_TELL) | R(FD_READDIR) |
                                R(FD_FILESTAT_GET) | R(FD_FILESTAT_SET_SIZE) | R(FD_FILESTAT_SET_TIMES) |
                                R(FD_FDSTAT_SET_FLAGS) | R(FD_SYNC) | R(FD_ADVISE) | R(FD_ALLOCATE) | R(PATH_OPEN) |
                                R(PATH_LINK_SOURCE) | R(PATH_LINK_TARGET) | R(PATH_UNLINK_FILE) | R(PATH_FILESTAT_GET);
    fd_t fd;
    MKDIR(root, "scratch");
    OK(__wasi_path_open(root, 0, "scratch", O(DIRECTORY), base, inheriting, 0, &fd));
    return fd;
}

/* Whether this implementation keeps rights at all. */
static inline int keeps_rights(fd_t fd)
{
    __wasi_fdstat_t has = FDSTAT(fd);
    return __wasi_fd_fdstat_set_rights(fd, has.fs_rights_base, has.fs_rights_inheriting) != E(NOTSUP);
}
