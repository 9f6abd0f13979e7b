/* A directory can be renumbered to where a preopened one was, which closes the number that it had. */
#include "../dir.h"

int main(void)
{
    fd_t root = open_root(), dir = make_scratch(root);
    __wasi_fdstat_t fdstat;
    CHECK(dir > 3);

    __wasi_filestat_t before = STAT(dir);
    OK(__wasi_fd_renumber(dir, 3));
    __wasi_filestat_t after = STAT(3);
    CHECK(before.dev == after.dev);
    CHECK(before.ino == after.ino);
    FAILS(__wasi_fd_fdstat_get(dir, &fdstat), E(BADF));

    CLOSE(3);
    RMDIR(root, "scratch");
}
