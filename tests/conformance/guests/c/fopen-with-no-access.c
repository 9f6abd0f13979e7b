/* With no preopened directory, no file of the host opens. */
#include "../check.h"

int main(void)
{
    CHECK(fopen("fs-tests.dir/file", "r") == NULL);
    CHECK(errno == ENOTCAPABLE || errno == ENOENT);
}
