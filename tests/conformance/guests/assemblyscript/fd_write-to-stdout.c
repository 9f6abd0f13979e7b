/* What is written to descriptor 1 arrives, and is counted. */
#include "../wasi.h"

int main(void)
{
    __wasi_ciovec_t text = {(const uint8_t *)"by fd_write", 11};
    __wasi_size_t written;
    OK(__wasi_fd_write(1, &text, 1, &written));
    CHECK(written == 11);
}
