/* A preopened directory has the rights that C libraries rely on; opened afresh it may have all of them, or none; but it
   does not open to be written to. */
#include "../dir.h"

static const uint64_t base = R(PATH_CREATE_DIRECTORY) | R(PATH_CREATE_FILE) | R(PATH_LINK_SOURCE) |
                             R(PATH_LINK_TARGET) | R(PATH_OPEN) | R(FD_READDIR) | R(PATH_READLINK) |
                             R(PATH_RENAME_SOURCE) | R(PATH_RENAME_TARGET) | R(PATH_SYMLINK) |
                             R(PATH_REMOVE_DIRECTORY) | R(PATH_UNLINK_FILE) | R(PATH_FILESTAT_GET) |
                             R(PATH_FILESTAT_SET_TIMES) | R(FD_FILESTAT_GET) | R(FD_FILESTAT_SET_TIMES);
static const uint64_t of_files = R(FD_DATASYNC) | R(FD_READ) | R(FD_SEEK) | R(FD_FDSTAT_SET_FLAGS) | R(FD_SYNC) |
                                 R(FD_TELL) | R(FD_WRITE) | R(FD_ADVISE) | R(FD_ALLOCATE) | R(FD_FILESTAT_SET_SIZE) |
                                 R(POLL_FD_READWRITE);

int main(void)
{
    fd_t preopen = find_preopen("/"), fd;
    __wasi_fdstat_t has = FDSTAT(preopen);
    CHECK((has.fs_rights_base & base) == base);
    CHECK((has.fs_rights_inheriting & (base | of_files)) == (base | of_files));

    OK(__wasi_path_open(preopen, 0, ".", 0, has.fs_rights_base, has.fs_rights_inheriting, 0, &fd));
    OK(__wasi_path_open(preopen, 0, ".", 0, 0, 0, 0, &fd));
    OK(__wasi_path_open(preopen, 0, ".", O(DIRECTORY), 0, 0, 0, &fd));
    OK(__wasi_path_open(preopen, 0, ".", O(DIRECTORY), R(FD_READ), 0, 0, &fd));
    FAILS(__wasi_path_open(preopen, 0, ".", O(DIRECTORY), R(FD_READ) | R(FD_WRITE), 0, 0, &fd), E(ISDIR));
}
