/* proc_exit ends the guest with its code. */
#include "../wasi.h"

int main(void)
{
    __wasi_proc_exit(21);
}
