/* Exactly the variables that were given arrive, quotes and newlines included, in whatever order. */
#include "../wasi.h"

int main(void)
{
    static const char *const expected[] = {"plain=value", "quote=say \"hi\"", "lines=one\ntwo"};
    uint8_t *variables[3];
    uint8_t text[256];
    __wasi_size_t count, size;

    OK(__wasi_environ_sizes_get(&count, &size));
    CHECK(count == 3);
    CHECK(size <= sizeof text);
    OK(__wasi_environ_get(variables, text));
    for (int i = 0; i < 3; i++) {
        int found = 0;
        for (int j = 0; j < 3; j++)
            found += strcmp((char *)variables[j], expected[i]) == 0;
        CHECK(found == 1);
    }
}
