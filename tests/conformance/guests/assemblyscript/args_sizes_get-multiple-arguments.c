/* Three arguments and the program's name are four. */
#include "../wasi.h"

int main(void)
{
    __wasi_size_t count, size;
    OK(__wasi_args_sizes_get(&count, &size));
    CHECK(count == 4);
}
