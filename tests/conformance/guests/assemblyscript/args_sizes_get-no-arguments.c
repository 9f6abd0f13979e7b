/* With no arguments there still is the program's name. */
#include "../wasi.h"

int main(void)
{
    __wasi_size_t count, size;
    OK(__wasi_args_sizes_get(&count, &size));
    CHECK(count == 1);
}
