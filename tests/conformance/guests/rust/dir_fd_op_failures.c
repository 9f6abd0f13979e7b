/* What is for files fails on directories; the name of a preopened one must fit. */
#include "../dir.h"

#define FOR_FILES E(ISDIR), E(BADF), E(NOTCAPABLE)

static void name(fd_t preopen)
{
    __wasi_prestat_t prestat;
    uint8_t text[64];
    OK(__wasi_fd_prestat_get(preopen, &prestat));
    FAILS(__wasi_fd_prestat_dir_name(preopen, text, 0), E(INVAL), E(NAMETOOLONG));
    OK(__wasi_fd_prestat_dir_name(preopen, text, prestat.u.dir.pr_name_len + 1));
}

static void test(fd_t dir)
{
    uint8_t data[128] = {0};
    __wasi_iovec_t in = {data, sizeof data};
    __wasi_ciovec_t out = {data, sizeof data};
    __wasi_size_t count;
    __wasi_filesize_t position;

    CHECK(STAT(dir).filetype == __WASI_FILETYPE_DIRECTORY);
    name(find_preopen("/"));
    FAILS(__wasi_fd_read(dir, &in, 1, &count), FOR_FILES);
    FAILS(__wasi_fd_pread(dir, &in, 1, 0, &count), FOR_FILES);
    FAILS(__wasi_fd_write(dir, &out, 1, &count), FOR_FILES);
    FAILS(__wasi_fd_pwrite(dir, &out, 1, 0, &count), FOR_FILES);
    FAILS(__wasi_fd_seek(dir, 0, __WASI_WHENCE_CUR, &position), FOR_FILES);
    FAILS(__wasi_fd_seek(dir, 0, __WASI_WHENCE_SET, &position), FOR_FILES);
    FAILS(__wasi_fd_seek(dir, 0, __WASI_WHENCE_END, &position), FOR_FILES);
    FAILS(__wasi_fd_tell(dir, &position), FOR_FILES);
    FAILS(__wasi_fd_allocate(dir, 0, 1), FOR_FILES);
    FAILS(__wasi_fd_filestat_set_size(dir, 0), FOR_FILES, E(INVAL));
}

ON_ROOT(test)
