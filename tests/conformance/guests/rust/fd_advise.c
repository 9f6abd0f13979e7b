/* Advice changes no size; allocating, where it is supported, does. */
#include "../dir.h"

static void test(fd_t root)
{
    fd_t file = OPEN(root, "advised", O(CREAT),
                     R(FD_READ) | R(FD_WRITE) | R(FD_ADVISE) | R(FD_ALLOCATE) | R(FD_FILESTAT_GET) |
                         R(FD_FILESTAT_SET_SIZE));
    CHECK(STAT(file).size == 0);
    OK(__wasi_fd_filestat_set_size(file, 100));
    CHECK(STAT(file).size == 100);
    OK(__wasi_fd_advise(file, 10, 50, __WASI_ADVICE_NORMAL));
    CHECK(STAT(file).size == 100);

    uint16_t allocated = __wasi_fd_allocate(file, 100, 100);
    CHECK(allocated == E(SUCCESS) || allocated == E(NOTSUP));
    if (allocated == E(SUCCESS))
        CHECK(STAT(file).size == 200);
    CLOSE(file);
    UNLINK(root, "advised");
}

ON_ROOT(test)
