/* A directory cannot be sought in, and has no right to it, though it was asked for. */
#include "../dir.h"

static void test(fd_t root)
{
    __wasi_filesize_t position;
    MKDIR(root, "sought");
    fd_t dir = OPEN(root, "sought", O(DIRECTORY), R(FD_SEEK));
    FAILS(__wasi_fd_seek(dir, 0, __WASI_WHENCE_CUR, &position), E(ISDIR), E(NOTCAPABLE), E(BADF));
    __wasi_fdstat_t fdstat = FDSTAT(dir);
    CHECK(fdstat.fs_filetype == __WASI_FILETYPE_DIRECTORY);
    CHECK((fdstat.fs_rights_base & R(FD_SEEK)) == 0);
    CLOSE(dir);
    RMDIR(root, "sought");
}

ON_ROOT(test)
