/* Renaming moves directories and files, onto nothing, onto an empty directory or onto a file of its kind, and onto nothing
   else. */
#include "../dir.h"

static void rename_and_look(fd_t dir, uint16_t oflags)
{
    OK(__wasi_path_rename(dir, "source", dir, "target"));
    FAILS(try_open(dir, "source", oflags), E(NOENT));
    CLOSE(OPEN(dir, "target", oflags, 0));
}

static void directories(fd_t dir)
{
    MKDIR(dir, "source");
    rename_and_look(dir, O(DIRECTORY));
    RMDIR(dir, "target");

    MKDIR(dir, "source");
    MKDIR(dir, "target");
    rename_and_look(dir, O(DIRECTORY));
    RMDIR(dir, "target");

    MKDIR(dir, "source");
    MKDIR(dir, "target");
    CREATE(dir, "target/file");
    FAILS(__wasi_path_rename(dir, "source", dir, "target"), E(NOTEMPTY));
    FAILS(__wasi_path_rename(dir, "source", dir, "target/file"), E(NOTDIR));
    UNLINK(dir, "target/file");
    RMDIR(dir, "target");
    RMDIR(dir, "source");
}

static void files(fd_t dir)
{
    CREATE(dir, "source");
    rename_and_look(dir, 0);
    UNLINK(dir, "target");

    CREATE(dir, "source");
    CREATE(dir, "target");
    rename_and_look(dir, 0);
    UNLINK(dir, "target");

    CREATE(dir, "source");
    MKDIR(dir, "target");
    FAILS(__wasi_path_rename(dir, "source", dir, "target"), E(ISDIR));
    RMDIR(dir, "target");
    UNLINK(dir, "source");
}

static void test(fd_t dir)
{
    directories(dir);
    files(dir);
}

ON_SCRATCH(test)
