/* Symbolic links to files and directories can be made and followed; one to an absolute path cannot be made. */
#include "../dir.h"

static void follow(fd_t dir, uint16_t oflags)
{
    fd_t fd;
    SYMLINK("target", dir, "link");
    OK(__wasi_path_open(dir, FOLLOW, "link", oflags, 0, 0, 0, &fd));
    CHECK(fd > 2);
    CLOSE(fd);
    UNLINK(dir, "link");
}

static void test(fd_t dir)
{
    CREATE(dir, "target");
    follow(dir, 0);
    UNLINK(dir, "target");

    MKDIR(dir, "target");
    follow(dir, O(DIRECTORY));
    RMDIR(dir, "target");

    FAILS_SOMEHOW(__wasi_path_symlink("/", dir, "link"));
}

ON_SCRATCH(test)
