/* Truncating by path needs that right of the directory, where rights to sizes are kept, and no right of the file. */
#include "../dir.h"

static void without_rights(fd_t dir, __wasi_fdstat_t has)
{
    CLOSE(OPEN(dir, "file", O(TRUNC), 0));
    if (has.fs_rights_inheriting & R(FD_FILESTAT_SET_SIZE)) {
        has.fs_rights_inheriting &= ~R(FD_FILESTAT_SET_SIZE);
        OK(__wasi_fd_fdstat_set_rights(dir, has.fs_rights_base, has.fs_rights_inheriting));
    }
    CLOSE(OPEN(dir, "file", O(TRUNC), 0));

    has.fs_rights_base &= ~R(PATH_FILESTAT_SET_SIZE);
    OK(__wasi_fd_fdstat_set_rights(dir, has.fs_rights_base, has.fs_rights_inheriting));
    CHECK((FDSTAT(dir).fs_rights_base & R(PATH_FILESTAT_SET_SIZE)) == 0);
    FAILS(try_open(dir, "file", O(TRUNC)), E(PERM), E(NOTCAPABLE));
}

static void test(fd_t dir)
{
    CREATE(dir, "file");
    __wasi_fdstat_t has = FDSTAT(dir);
    CHECK(has.fs_filetype == __WASI_FILETYPE_DIRECTORY);
    CHECK(has.fs_flags == 0);
    CHECK((has.fs_rights_base & R(FD_FILESTAT_SET_SIZE)) == 0);
    if (has.fs_rights_base & R(PATH_FILESTAT_SET_SIZE))
        without_rights(dir, has);
    UNLINK(dir, "file");
}

ON_SCRATCH(test)
