/* Three variables were given, and there are three. */
#include "../wasi.h"

int main(void)
{
    __wasi_size_t count, size;
    OK(__wasi_environ_sizes_get(&count, &size));
    CHECK(count == 3);
}
