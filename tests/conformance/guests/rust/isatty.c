/* A file is no terminal. */
#include "../dir.h"
#include <unistd.h>

static void test(fd_t dir)
{
    fd_t file = OPEN(dir, "file", O(CREAT), 0);
    CHECK(isatty(file) == 0);
    CLOSE(file);
    UNLINK(dir, "file");
}

ON_SCRATCH(test)
