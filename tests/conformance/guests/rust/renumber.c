/* A renumbered descriptor keeps all that it is under its new number; the old one is closed, and no target any more. */
#include "../dir.h"

static void test(fd_t dir)
{
    CHECK(dir > 3);
    fd_t from = OPEN(dir, "file1", O(CREAT), R(FD_READ) | R(FD_WRITE));
    __wasi_fdstat_t before = FDSTAT(from);
    fd_t to = OPEN(dir, "file2", O(CREAT), R(FD_READ) | R(FD_WRITE));

    OK(__wasi_fd_renumber(from, to));
    FAILS(__wasi_fd_close(from), E(BADF));
    __wasi_fdstat_t after = FDSTAT(to);
    CHECK(before.fs_filetype == after.fs_filetype);
    CHECK(before.fs_flags == after.fs_flags);
    CHECK(before.fs_rights_base == after.fs_rights_base);
    CHECK(before.fs_rights_inheriting == after.fs_rights_inheriting);
    FAILS(__wasi_fd_renumber(to, from), E(BADF));

    CLOSE(to);
    UNLINK(dir, "file1");
    UNLINK(dir, "file2");
}

ON_SCRATCH(test)
