/* A file opened to append does so wherever it was sought to, until the flag is cleared. */
#include "../dir.h"

enum { SIZE = 100 };

static void seek(fd_t file, int64_t offset)
{
    __wasi_filesize_t position;
    OK(__wasi_fd_seek(file, offset, __WASI_WHENCE_SET, &position));
}

/* Writes at 0, where it thinks, and finds it at an offset. */
static void write_and_find(fd_t file, uint8_t byte, int64_t offset)
{
    uint8_t written[SIZE], read[SIZE];
    __wasi_size_t count;
    memset(written, byte, SIZE);
    seek(file, 0);
    OK(put(file, written, SIZE, &count));
    CHECK(count == SIZE);
    seek(file, offset);
    OK(get(file, read, SIZE, &count));
    CHECK(count == SIZE);
    CHECK(memcmp(written, read, SIZE) == 0);
}

static void test(fd_t root)
{
    fd_t file = OPEN_WITH(root, "flagged", O(CREAT),
                          R(FD_READ) | R(FD_WRITE) | R(FD_SEEK) | R(FD_TELL) | R(FD_FDSTAT_SET_FLAGS), FD(APPEND));
    write_and_find(file, 0, 0);
    write_and_find(file, 1, SIZE);
    OK(__wasi_fd_fdstat_set_flags(file, 0));
    write_and_find(file, 2, 0);
    CLOSE(file);
    CHECK(STAT_AT(root, 0, "flagged").size == 2 * SIZE);
    UNLINK(root, "flagged");
}

ON_ROOT(test)
