/* A preopened directory can be closed; a descriptor that was opened through it stays. */
#include "../dir.h"

static void test(fd_t dir)
{
    __wasi_fdstat_t fdstat;
    CHECK(dir > 3);
    OK(__wasi_fd_close(3));
    CHECK(FDSTAT(dir).fs_filetype == __WASI_FILETYPE_DIRECTORY);
    FAILS(__wasi_fd_fdstat_get(3, &fdstat), E(BADF));
}

ON_ROOT(test)
