/* Of 1024 random bytes, one at least is not zero. */
#include "../wasi.h"

int main(void)
{
    uint8_t bytes[1024] = {0}, any = 0;
    OK(__wasi_random_get(bytes, sizeof bytes));
    for (size_t i = 0; i < sizeof bytes; i++)
        any |= bytes[i];
    CHECK(any != 0);
}
