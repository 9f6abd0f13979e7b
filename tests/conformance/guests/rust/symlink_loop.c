/* A symbolic link to itself does not open. */
#include "../dir.h"

static void test(fd_t dir)
{
    if (__wasi_path_symlink("link", dir, "link") != E(SUCCESS))
        return; /* an implementation may refuse to make it */
    FAILS(try_open(dir, "link", 0), E(LOOP));
    UNLINK(dir, "link");
}

ON_SCRATCH(test)
