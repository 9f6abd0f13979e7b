/* A time cannot be set to a value and to now at once. */
#include "../dir.h"

static void test(fd_t root)
{
    fd_t file = OPEN(root, "timed", O(CREAT), R(FD_READ) | R(FD_FILESTAT_SET_TIMES));
    FAILS(__wasi_fd_filestat_set_times(file, 100, 200, __WASI_FSTFLAGS_MTIM | __WASI_FSTFLAGS_MTIM_NOW), E(INVAL));
    FAILS(__wasi_fd_filestat_set_times(file, 100, 200, __WASI_FSTFLAGS_ATIM | __WASI_FSTFLAGS_ATIM_NOW), E(INVAL));
    CLOSE(file);
}

ON_ROOT(test)
