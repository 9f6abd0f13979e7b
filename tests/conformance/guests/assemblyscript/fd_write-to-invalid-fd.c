/* A descriptor that never was cannot be written to. */
#include "../wasi.h"

int main(void)
{
    __wasi_size_t written;
    FAILS(__wasi_fd_write(-12345, NULL, 0, &written), E(BADF));
}
