/* A guest may yield. */
#include "../wasi.h"

int main(void)
{
    OK(__wasi_sched_yield());
}
