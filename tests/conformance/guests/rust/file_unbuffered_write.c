/* What one descriptor writes, another of the same file reads at once. */
#include "../dir.h"

static void test(fd_t dir)
{
    const uint8_t written = 1;
    uint8_t read = 0;
    __wasi_size_t count;
    fd_t reader = OPEN(dir, "file", O(CREAT), R(FD_READ)), writer = OPEN(dir, "file", 0, R(FD_WRITE));
    OK(put(writer, &written, 1, &count));
    CHECK(count == 1);
    OK(get(reader, &read, 1, &count));
    CHECK(count == 1);
    CHECK(read == written);
    CLOSE(writer);
    CLOSE(reader);
    UNLINK(dir, "file");
}

ON_SCRATCH(test)
