/* A symbolic link that is not followed does not open, whatever is behind it. */
#include "../dir.h"

static uint16_t follow(fd_t dir, fd_t *fd)
{
    return __wasi_path_open(dir, FOLLOW, "link", O(DIRECTORY), 0, 0, 0, fd);
}

static void to_a_directory(fd_t dir)
{
    fd_t fd;
    MKDIR(dir, "target");
    SYMLINK("target", dir, "link");
    FAILS(try_open(dir, "link", O(DIRECTORY)), E(LOOP), E(NOTDIR));
    FAILS(try_open(dir, "link", 0), E(LOOP), E(ACCES));
    OK(follow(dir, &fd));
    CHECK(fd > 2);
    CLOSE(fd);
    UNLINK(dir, "link");
    RMDIR(dir, "target");
}

static void to_a_file(fd_t dir)
{
    fd_t fd;
    CREATE(dir, "target");
    SYMLINK("target", dir, "link");
    FAILS(try_open(dir, "link", O(DIRECTORY)), E(LOOP), E(NOTDIR));
    FAILS(try_open(dir, "link", 0), E(LOOP));
    FAILS(follow(dir, &fd), E(NOTDIR));
    UNLINK(dir, "target");
    UNLINK(dir, "link");
}

static void test(fd_t dir)
{
    to_a_directory(dir);
    to_a_file(dir);
}

ON_SCRATCH(test)
