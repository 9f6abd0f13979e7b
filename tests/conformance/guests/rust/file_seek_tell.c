/* The position starts at 0, moves with reads, writes and seeks, may be beyond the end and never before the start. */
#include "../dir.h"

static void test(fd_t dir)
{
    uint8_t data[100] = {0};
    __wasi_filesize_t position;
    __wasi_size_t count;
    fd_t file = OPEN(dir, "file", O(CREAT), R(FD_READ) | R(FD_WRITE) | R(FD_SEEK) | R(FD_TELL));

    OK(__wasi_fd_tell(file, &position));
    CHECK(position == 0);
    OK(put(file, data, sizeof data, &count));
    CHECK(count == sizeof data);
    OK(__wasi_fd_tell(file, &position));
    CHECK(position == 100);

    OK(__wasi_fd_seek(file, -50, __WASI_WHENCE_CUR, &position));
    CHECK(position == 50);
    OK(__wasi_fd_seek(file, 0, __WASI_WHENCE_SET, &position));
    CHECK(position == 0);
    OK(__wasi_fd_seek(file, 1000, __WASI_WHENCE_CUR, &position));
    FAILS(__wasi_fd_seek(file, -2000, __WASI_WHENCE_CUR, &position), E(INVAL));

    OK(__wasi_fd_seek(file, 0, __WASI_WHENCE_SET, &position));
    OK(get(file, data, sizeof data, &count));
    CHECK(count == sizeof data);
    OK(__wasi_fd_tell(file, &position));
    CHECK(position == 100);
    CLOSE(file);
    UNLINK(dir, "file");
}

ON_SCRATCH(test)
