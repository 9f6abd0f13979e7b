/* Allocating, where it is supported, makes a file as long as it must be, and never shorter. */
#include "../dir.h"

static void test(fd_t dir)
{
    fd_t file = OPEN(dir, "file", O(CREAT), R(FD_READ) | R(FD_WRITE) | R(FD_ALLOCATE) | R(FD_FILESTAT_GET));
    CHECK(STAT(file).size == 0);
    uint16_t allocated = __wasi_fd_allocate(file, 0, 100);
    CHECK(allocated == E(SUCCESS) || allocated == E(NOTSUP));
    if (allocated == E(SUCCESS)) {
        CHECK(STAT(file).size == 100);
        OK(__wasi_fd_allocate(file, 10, 10));
        CHECK(STAT(file).size == 100);
        OK(__wasi_fd_allocate(file, 90, 20));
        CHECK(STAT(file).size == 110);
    }
    CLOSE(file);
    UNLINK(dir, "file");
}

ON_SCRATCH(test)
