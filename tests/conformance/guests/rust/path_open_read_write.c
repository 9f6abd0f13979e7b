/* A file opens to be read, to be written or for both, and then has that right and not the other. */
#include "../dir.h"

#define RIGHTS(fd) (FDSTAT(fd).fs_rights_base & (R(FD_READ) | R(FD_WRITE)))
#define NO_RIGHT E(BADF), E(NOTCAPABLE), E(ACCES)

static uint8_t data[100];

static void to_read(fd_t root)
{
    __wasi_size_t count;
    fd_t file = OPEN(root, "opened", 0, R(FD_READ));
    CHECK(RIGHTS(file) == R(FD_READ));
    OK(get(file, data, sizeof data, &count));
    CHECK(count == 0);
    FAILS(put(file, data, 50, &count), NO_RIGHT);
    CLOSE(file);
}

static void to_write(fd_t root)
{
    __wasi_size_t count;
    fd_t file = OPEN(root, "opened", 0, R(FD_WRITE));
    CHECK(RIGHTS(file) == R(FD_WRITE));
    FAILS(get(file, data, sizeof data, &count), NO_RIGHT);
    OK(put(file, data, 50, &count));
    CHECK(count == 50);
    CLOSE(file);
}

static void for_both(fd_t root)
{
    __wasi_size_t count;
    fd_t file = OPEN(root, "opened", 0, R(FD_READ) | R(FD_WRITE) | R(FD_FILESTAT_GET));
    CHECK(RIGHTS(file) == (R(FD_READ) | R(FD_WRITE)));
    OK(get(file, data, sizeof data, &count));
    CHECK(count == 50);
    OK(put(file, data, 25, &count));
    CHECK(count == 25);
    CHECK(STAT(file).size == 75);
    CLOSE(file);
}

static void test(fd_t root)
{
    CREATE(root, "opened");
    to_read(root);
    to_write(root);
    for_both(root);
    UNLINK(root, "opened");
}

ON_ROOT(test)
