/* No variable was given, and there is none. */
#include "../wasi.h"

int main(void)
{
    __wasi_size_t count, size;
    OK(__wasi_environ_sizes_get(&count, &size));
    CHECK(count == 0);
}
