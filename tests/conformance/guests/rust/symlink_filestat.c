/* Times are a symbolic link's own, or its file's if it is followed. */
#include "../dir.h"

static void test(fd_t dir)
{
    CHECK((FDSTAT(dir).fs_rights_base & R(PATH_FILESTAT_GET)) != 0);
    fd_t fd = OPEN(dir, "file", O(CREAT), R(FD_READ) | R(FD_WRITE) | R(PATH_FILESTAT_GET));
    __wasi_filestat_t file = STAT_AT(dir, 0, "file");
    CHECK(file.size == 0);
    SYMLINK("file", dir, "link");
    __wasi_filestat_t link = STAT_AT(dir, 0, "link");

    OK(__wasi_path_filestat_set_times(dir, 0, "link", 0, link.mtim - 200, __WASI_FSTFLAGS_MTIM));
    CHECK(STAT_AT(dir, 0, "link").mtim == link.mtim - 200);
    CHECK(STAT_AT(dir, 0, "file").mtim == file.mtim);
    CHECK(STAT_AT(dir, FOLLOW, "link").mtim == file.mtim);

    OK(__wasi_path_filestat_set_times(dir, FOLLOW, "link", 0, link.mtim, __WASI_FSTFLAGS_MTIM));
    CHECK(STAT_AT(dir, 0, "file").mtim == link.mtim);
    CLOSE(fd);
    UNLINK(dir, "link");
    UNLINK(dir, "file");
}

ON_SCRATCH(test)
