/* Paths with "..", ".", double and trailing slashes mean what they mean in POSIX; absolute ones and ones that lead out of
   the directory are refused, and so are NULs. */
#include "../dir.h"

/* What wasi-libc's own declaration cannot pass on: a path with a NUL. */
__attribute__((import_module("wasi_snapshot_preview1"), import_name("path_open"))) int32_t path_open(
    int32_t, int32_t, const char *, int32_t, int32_t, int64_t, int64_t, int32_t, fd_t *);

static void test(fd_t dir)
{
    static const char with_nul[] = "dir/nested/file";
    fd_t fd;
    MKDIR(dir, "dir");
    MKDIR(dir, "dir/nested");
    CREATE(dir, "dir/nested/file");

    FAILS(try_open(dir, "/dir/nested/file", 0), E(PERM), E(NOTCAPABLE));
    CLOSE(OPEN(dir, "dir/.//nested/../../dir/nested/../nested///./file", 0, 0));
    FAILS(path_open(dir, 0, with_nul, sizeof with_nul, 0, 0, 0, 0, &fd), E(INVAL), E(ILSEQ), E(NOENT));
    FAILS(try_open(dir, "dir/nested/file/", 0), E(NOTDIR), E(NOENT));
    FAILS(try_open(dir, "dir/nested/file///", 0), E(NOTDIR), E(NOENT));
    CLOSE(OPEN(dir, "dir/nested/", 0, 0));
    CLOSE(OPEN(dir, "dir/nested///", 0, 0));
    FAILS(try_open(dir, "dir/nested/../../../dir/nested/file", 0), E(PERM), E(NOTCAPABLE));

    UNLINK(dir, "dir/nested/file");
    RMDIR(dir, "dir/nested");
    RMDIR(dir, "dir");
}

ON_SCRATCH(test)
