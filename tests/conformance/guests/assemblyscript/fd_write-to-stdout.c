/* What is written to descriptor 1 arrives, and is counted. */
#include "../wasi.h"

int main(void)
{
    __wasi_ciovec_t hello = {(const uint8_t *)"hello", 5};
    __wasi_size_t written;
    OK(__wasi_fd_write(1, &hello, 1, &written));
    CHECK(written == 5);
}
