/* No random bytes are to be had, too. */
#include "../wasi.h"

int main(void)
{
    uint8_t none[1];
    OK(__wasi_random_get(none, 0));
}
