/* The name of a removed file or directory is free again. */
#include "../dir.h"

static void test(fd_t root)
{
    CREATE(root, "dangling_file");
    CLOSE(OPEN(root, "dangling_file", 0, 0));
    UNLINK(root, "dangling_file");
    CREATE(root, "dangling_file");
    UNLINK(root, "dangling_file");

    MKDIR(root, "dangling_dir");
    CLOSE(OPEN(root, "dangling_dir", O(DIRECTORY), 0));
    RMDIR(root, "dangling_dir");
    MKDIR(root, "dangling_dir");
}

ON_ROOT(test)
