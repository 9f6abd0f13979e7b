/* A directory is not removed while there is something in it. */
#include "../dir.h"

static void test(fd_t dir)
{
    MKDIR(dir, "outer");
    MKDIR(dir, "outer/inner");
    FAILS(__wasi_path_remove_directory(dir, "outer"), E(NOTEMPTY));
    RMDIR(dir, "outer/inner");
    RMDIR(dir, "outer");
}

ON_SCRATCH(test)
