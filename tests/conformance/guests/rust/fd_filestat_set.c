/* Size and times of an open file can be set, and nothing else changes with them. */
#include "../dir.h"

static void test(fd_t root)
{
    fd_t file = OPEN(root, "set", O(CREAT),
                     R(FD_READ) | R(FD_WRITE) | R(FD_FILESTAT_GET) | R(FD_FILESTAT_SET_SIZE) |
                         R(FD_FILESTAT_SET_TIMES));
    CHECK(STAT(file).size == 0);
    OK(__wasi_fd_filestat_set_size(file, 100));
    __wasi_filestat_t before = STAT(file);
    CHECK(before.size == 100);

    OK(__wasi_fd_filestat_set_times(file, before.mtim - 100, before.mtim - 100, __WASI_FSTFLAGS_MTIM));
    __wasi_filestat_t after = STAT(file);
    CHECK(after.size == 100);
    CHECK(after.mtim == before.mtim - 100);
    CHECK(after.atim == before.atim);
    CLOSE(file);
    UNLINK(root, "set");
}

ON_ROOT(test)
