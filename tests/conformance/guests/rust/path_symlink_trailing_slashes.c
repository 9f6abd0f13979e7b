/* A symbolic link's own name does not end with a slash, nor is it one that exists. */
#include "../dir.h"

static void test(fd_t dir)
{
    FAILS(__wasi_path_symlink("source", dir, "target/"), E(NOENT));
    if (__wasi_path_symlink("source", dir, "target") == E(SUCCESS))
        UNLINK(dir, "target");

    MKDIR(dir, "target");
    FAILS(__wasi_path_symlink("source", dir, "target/"), E(EXIST));
    FAILS(__wasi_path_symlink("source", dir, "target"), E(EXIST));
    RMDIR(dir, "target");

    CREATE(dir, "target");
    FAILS(__wasi_path_symlink("source", dir, "target/"), E(NOTDIR), E(EXIST));
    FAILS(__wasi_path_symlink("source", dir, "target"), E(EXIST));
    UNLINK(dir, "target");
}

ON_SCRATCH(test)
