/* Unlinking is for files, whose name does not end with a slash. */
#include "../dir.h"

static void test(fd_t dir)
{
    MKDIR(dir, "dir");
    FAILS(__wasi_path_unlink_file(dir, "dir"), E(ISDIR));
    FAILS(__wasi_path_unlink_file(dir, "dir/"), E(ISDIR));
    RMDIR(dir, "dir");

    CREATE(dir, "file");
    FAILS(__wasi_path_unlink_file(dir, "file/"), E(NOTDIR));
    UNLINK(dir, "file");
}

ON_SCRATCH(test)
