/* A directory is removed with or without a slash after its name, if the implementation allows it; a file never is. */
#include "../dir.h"

static void test(fd_t root)
{
    MKDIR(root, "removed");
    RMDIR(root, "removed");

    MKDIR(root, "removed");
    uint16_t got = __wasi_path_remove_directory(root, "removed/");
    CHECK(got == E(SUCCESS) || got == E(ACCES) || got == E(INVAL));
    if (got != E(SUCCESS))
        RMDIR(root, "removed");

    CREATE(root, "kept");
    FAILS(__wasi_path_remove_directory(root, "kept"), E(NOTDIR));
    FAILS(__wasi_path_remove_directory(root, "kept/"), E(NOTDIR));
    UNLINK(root, "kept");
}

ON_ROOT(test)
