/* Arguments arrive whole and in order, after the program's name. */
#include "../wasi.h"

int main(void)
{
    static const char *const expected[] = {"alpha", "a \"quoted\" word", "42"};
    uint8_t *arguments[4];
    uint8_t text[256];
    __wasi_size_t count, size;

    OK(__wasi_args_sizes_get(&count, &size));
    CHECK(count == 4);
    CHECK(size <= sizeof text);
    OK(__wasi_args_get(arguments, text));
    for (int i = 0; i < 3; i++)
        CHECK(strcmp((char *)arguments[i + 1], expected[i]) == 0);
}
