/* There are 32 random bytes to be had. */
#include "../wasi.h"

int main(void)
{
    uint8_t bytes[32];
    OK(__wasi_random_get(bytes, sizeof bytes));
}
