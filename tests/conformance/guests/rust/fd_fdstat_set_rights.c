/* Rights, where they are kept, can be dropped, are missed then, and do not come back. */
#include "../dir.h"

static void test(fd_t dir)
{
    const uint64_t transfer = R(FD_READ) | R(FD_WRITE), all = transfer | R(FD_SEEK) | R(FD_TELL);
    const uint8_t written[4] = {0, 1, 2, 3};
    uint8_t read[4];
    __wasi_size_t count;
    __wasi_filesize_t position;

    if (!keeps_rights(dir))
        return;
    fd_t file = OPEN(dir, "file", O(CREAT), all);
    OK(put(file, written, 4, &count));
    OK(__wasi_fd_seek(file, 0, __WASI_WHENCE_SET, &position));
    OK(get(file, read, 4, &count));
    CHECK(count == 4 && memcmp(read, written, 4) == 0);

    __wasi_fdstat_t has = FDSTAT(file);
    OK(__wasi_fd_fdstat_set_rights(file, has.fs_rights_base & ~transfer, has.fs_rights_inheriting));
    has = FDSTAT(file);
    CHECK((has.fs_rights_base & transfer) == 0);
    CHECK((has.fs_rights_base & R(FD_SEEK)) != 0);
    FAILS(get(file, read, 4, &count), E(BADF), E(NOTCAPABLE));
    FAILS(put(file, written, 4, &count), E(BADF), E(NOTCAPABLE));
    FAILS(__wasi_fd_fdstat_set_rights(file, has.fs_rights_base | all, has.fs_rights_inheriting | all), E(NOTCAPABLE));

    CLOSE(file);
    UNLINK(dir, "file");
}

ON_SCRATCH(test)
