/* Paths have the type of what they name; of what it leads to, if a link is followed. */
#include "../dir.h"

#define TYPE(flags, name) STAT_AT(dir, flags, name).filetype

static void test(fd_t dir)
{
    MKDIR(dir, "subdir");
    CHECK(TYPE(0, "subdir") == __WASI_FILETYPE_DIRECTORY);
    CHECK(TYPE(FOLLOW, "subdir") == __WASI_FILETYPE_DIRECTORY);

    CREATE(dir, "subdir/file");
    CHECK(TYPE(0, "subdir/file") == __WASI_FILETYPE_REGULAR_FILE);
    CHECK(TYPE(FOLLOW, "subdir/file") == __WASI_FILETYPE_REGULAR_FILE);

    SYMLINK("subdir/file", dir, "to_file");
    CHECK(TYPE(0, "to_file") == __WASI_FILETYPE_SYMBOLIC_LINK);
    CHECK(TYPE(FOLLOW, "to_file") == __WASI_FILETYPE_REGULAR_FILE);

    SYMLINK("subdir", dir, "to_dir");
    CHECK(TYPE(0, "to_dir") == __WASI_FILETYPE_SYMBOLIC_LINK);
    CHECK(TYPE(FOLLOW, "to_dir") == __WASI_FILETYPE_DIRECTORY);

    UNLINK(dir, "to_file");
    UNLINK(dir, "to_dir");
    UNLINK(dir, "subdir/file");
    RMDIR(dir, "subdir");
}

ON_SCRATCH(test)
