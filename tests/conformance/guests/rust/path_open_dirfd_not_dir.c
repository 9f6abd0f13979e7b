/* Nothing opens below a file. */
#include "../dir.h"

static void test(fd_t dir)
{
    fd_t file = OPEN(dir, "file", O(CREAT), 0);
    FAILS(try_open(file, "below", O(CREAT)), E(NOTDIR), E(NOTCAPABLE));
    CLOSE(file);
    UNLINK(dir, "file");
}

ON_SCRATCH(test)
