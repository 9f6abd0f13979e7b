/* proc_exit ends the guest, with code 0, too. */
#include "../wasi.h"

int main(void)
{
    __wasi_proc_exit(0);
}
