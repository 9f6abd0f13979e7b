/* A file that exists is not created where it must be new. */
#include "../dir.h"

static void test(fd_t dir)
{
    CREATE(dir, "file");
    FAILS(try_open(dir, "file", O(CREAT) | O(EXCL)), E(EXIST));
    UNLINK(dir, "file");
}

ON_SCRATCH(test)
