/* A file opened to be truncated is empty. */
#include "../dir.h"

static void test(fd_t dir)
{
    char data[64] = "what is here is going to be cut off";
    __wasi_size_t count;
    fd_t file = OPEN(dir, "file", O(CREAT), R(FD_WRITE));
    OK(put(file, data, strlen(data), &count));
    CHECK(count == strlen(data));
    CLOSE(file);

    file = OPEN(dir, "file", O(CREAT) | O(TRUNC), R(FD_READ) | R(FD_WRITE));
    OK(get(file, data, sizeof data, &count));
    CHECK(count == 0);
    CLOSE(file);
    UNLINK(dir, "file");
}

ON_SCRATCH(test)
