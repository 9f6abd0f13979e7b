/* A directory opens with NONBLOCK, which means nothing to it. */
#include "../dir.h"

static void test(fd_t root)
{
    fd_t fd;
    OK(__wasi_path_open(root, 0, ".", 0, 0, 0, FD(NONBLOCK), &fd));
}

ON_ROOT(test)
