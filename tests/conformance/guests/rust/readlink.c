/* What a symbolic link says is read as far as it fits, and nothing is written beyond it. */
#include "../dir.h"

static void test(fd_t dir)
{
    uint8_t buffer[10] = {0}, small[4] = {0};
    __wasi_size_t used;
    CREATE(dir, "target");
    SYMLINK("target", dir, "link");
    OK(__wasi_path_readlink(dir, "link", buffer, sizeof buffer, &used));
    CHECK(used == 6);
    CHECK(memcmp(buffer, "target\0\0\0\0", sizeof buffer) == 0);
    OK(__wasi_path_readlink(dir, "link", small, sizeof small, &used));
    CHECK(used == sizeof small);
    CHECK(memcmp(small, "targ", sizeof small) == 0);
    UNLINK(dir, "target");
    UNLINK(dir, "link");
}

ON_SCRATCH(test)
