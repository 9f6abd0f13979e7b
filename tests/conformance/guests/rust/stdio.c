/* Standard streams can be renumbered like any descriptor, and are closed where they were. */
#include "../dir.h"

static void test(fd_t dir)
{
    __wasi_fdstat_t fdstat;
    for (fd_t stream = 0; stream < 3; stream++) {
        fd_t to; /* may be a number that became free with a stream */
        OK(__wasi_path_open(dir, 0, "file", O(CREAT), 0, 0, 0, &to));
        OK(__wasi_fd_renumber(stream, to));
        OK(__wasi_fd_fdstat_get(to, &fdstat));
        FAILS_SOMEHOW(__wasi_fd_fdstat_get(stream, &fdstat));
        UNLINK(dir, "file");
    }
}

ON_SCRATCH(test)
