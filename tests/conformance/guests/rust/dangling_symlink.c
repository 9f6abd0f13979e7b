/* A symbolic link to nothing does not open, as a directory or a file, if links are not followed. */
#include "../dir.h"

static void test(fd_t root)
{
    if (__wasi_path_symlink("target", root, "link") != E(SUCCESS))
        return; /* an implementation may refuse to make it */
    FAILS(try_open(root, "link", O(DIRECTORY)), E(NOTDIR), E(LOOP));
    FAILS(try_open(root, "link", 0), E(LOOP));
    UNLINK(root, "link");
}

ON_ROOT(test)
