/* A file keeps the flags that it was opened with; its time can be set by its path, but not to a value and to now. */
#include "../dir.h"

#define RIGHTS (R(FD_READ) | R(FD_WRITE) | R(PATH_FILESTAT_GET))

static void check_flags(fd_t dir)
{
    fd_t file;
    __wasi_fdflags_t flags = FD(APPEND) | FD(SYNC);
    uint16_t got = __wasi_path_open(dir, 0, "file", O(CREAT), RIGHTS, 0, flags, &file);
    if (got == E(NOTSUP)) { /* an implementation may not have SYNC */
        flags = FD(APPEND);
        got = __wasi_path_open(dir, 0, "file", O(CREAT), RIGHTS, 0, flags, &file);
    }
    OK(got);
    CHECK(file > 2);
    CHECK((FDSTAT(file).fs_flags & flags) == flags);
    CLOSE(file);
}

static uint16_t set_times(fd_t dir, __wasi_timestamp_t mtim, __wasi_fstflags_t flags)
{
    return __wasi_path_filestat_set_times(dir, 0, "file", 0, mtim, flags);
}

static void test(fd_t dir)
{
    CHECK((FDSTAT(dir).fs_rights_base & R(PATH_FILESTAT_GET)) != 0);
    check_flags(dir);
    __wasi_filestat_t status = STAT_AT(dir, 0, "file");
    CHECK(status.size == 0);

    __wasi_timestamp_t earlier = status.mtim - 100;
    OK(set_times(dir, earlier, __WASI_FSTFLAGS_MTIM));
    CHECK(STAT_AT(dir, 0, "file").mtim == earlier);
    FAILS(set_times(dir, earlier, __WASI_FSTFLAGS_MTIM | __WASI_FSTFLAGS_MTIM_NOW), E(INVAL));
    CHECK(STAT_AT(dir, 0, "file").mtim == earlier);
    FAILS(set_times(dir, 0, __WASI_FSTFLAGS_ATIM | __WASI_FSTFLAGS_ATIM_NOW), E(INVAL));
    UNLINK(dir, "file");
}

ON_SCRATCH(test)
