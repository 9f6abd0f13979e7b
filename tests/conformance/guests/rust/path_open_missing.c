/* What is not there does not open. */
#include "../dir.h"

static void test(fd_t dir)
{
    FAILS(try_open(dir, "file", 0), E(NOENT));
}

ON_SCRATCH(test)
