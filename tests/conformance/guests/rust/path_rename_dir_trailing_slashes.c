/* A directory's names may end with a slash when it is renamed, the old one, the new one, both or neither. */
#include "../dir.h"

static void test(fd_t dir)
{
    MKDIR(dir, "source");
    OK(__wasi_path_rename(dir, "source/", dir, "target"));
    OK(__wasi_path_rename(dir, "target", dir, "source/"));
    OK(__wasi_path_rename(dir, "source/", dir, "target/"));
    OK(__wasi_path_rename(dir, "target", dir, "source"));
    RMDIR(dir, "source");
}

ON_SCRATCH(test)
