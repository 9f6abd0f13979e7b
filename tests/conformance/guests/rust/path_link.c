/* A hard link is the file itself under a second name, in any directory. Links to directories, over anything that exists,
   or through a symbolic link are refused; a link to a symbolic link, even a broken one, is not. */
#include "../dir.h"

#define RIGHTS \
    (R(FD_READ) | R(FD_FILESTAT_GET) | R(PATH_OPEN) | R(PATH_LINK_SOURCE) | R(PATH_LINK_TARGET) | R(PATH_UNLINK_FILE))

static fd_t open_with_rights(fd_t dir, const char *name, uint16_t oflags)
{
    fd_t fd;
    OK(__wasi_path_open(dir, 0, name, oflags, RIGHTS, RIGHTS, 0, &fd));
    CHECK(fd > 2);
    return fd;
}

static void check_same(fd_t file, fd_t link)
{
    __wasi_filestat_t one = STAT(file), other = STAT(link);
    CHECK(one.dev == other.dev);
    CHECK(one.ino == other.ino);
    CHECK(one.atim == other.atim);
    CHECK(one.mtim == other.mtim);
    CHECK(one.ctim == other.ctim);
    CHECK(one.size == other.size);
    CHECK(one.nlink == other.nlink);
    CHECK(one.filetype == other.filetype);

    __wasi_fdstat_t has = FDSTAT(file), has_too = FDSTAT(link);
    CHECK(has.fs_flags == has_too.fs_flags);
    CHECK(has.fs_filetype == has_too.fs_filetype);
    if (!keeps_rights(file))
        return;
    CHECK(has.fs_rights_base == has_too.fs_rights_base);
    CHECK(has.fs_rights_inheriting == has_too.fs_rights_inheriting);
}

static void second_names(fd_t dir)
{
    fd_t file = open_with_rights(dir, "file", O(CREAT));
    OK(__wasi_path_link(dir, 0, "file", dir, "link"));
    fd_t link = open_with_rights(dir, "link", 0);
    check_same(file, link);
    CLOSE(link);
    UNLINK(dir, "link");

    MKDIR(dir, "subdir");
    fd_t subdir = open_with_rights(dir, "subdir", O(DIRECTORY));
    OK(__wasi_path_link(dir, 0, "file", subdir, "link"));
    link = open_with_rights(subdir, "link", 0);
    check_same(file, link);
    CLOSE(link);
    CLOSE(file);
    UNLINK(subdir, "link");
    CLOSE(subdir);
    RMDIR(dir, "subdir");
}

static void what_is_refused(fd_t dir)
{
    CREATE(dir, "link");
    FAILS(__wasi_path_link(dir, 0, "file", dir, "link"), E(EXIST));
    UNLINK(dir, "link");
    FAILS(__wasi_path_link(dir, 0, "file", dir, "file"), E(EXIST));

    MKDIR(dir, "link");
    FAILS(__wasi_path_link(dir, 0, "file", dir, "link"), E(EXIST));
    RMDIR(dir, "link");

    MKDIR(dir, "subdir");
    FAILS(__wasi_path_link(dir, 0, "subdir", dir, "link"), E(PERM), E(ACCES));
    RMDIR(dir, "subdir");
    FAILS(__wasi_path_link(dir, 0, "file", dir, "link/"), E(NOENT));
}

static void of_symlinks(fd_t dir)
{
    static const char *const broken[] = {"target", "symlink"}; /* it leads to nothing; it leads to itself */
    for (int i = 0; i < 2; i++) {
        if (__wasi_path_symlink(broken[i], dir, "symlink") != E(SUCCESS))
            return; /* an implementation may refuse to make it */
        OK(__wasi_path_link(dir, 0, "symlink", dir, "link"));
        UNLINK(dir, "symlink");
        UNLINK(dir, "link");
    }
    SYMLINK("target", dir, "symlink");
    FAILS(__wasi_path_link(dir, 0, "file", dir, "symlink"), E(EXIST));
    FAILS(__wasi_path_link(dir, FOLLOW, "symlink", dir, "link"), E(INVAL), E(NOENT));
    UNLINK(dir, "symlink");
}

static void test(fd_t dir)
{
    second_names(dir);
    what_is_refused(dir);
    of_symlinks(dir);
    UNLINK(dir, "file");
}

ON_SCRATCH(test)
