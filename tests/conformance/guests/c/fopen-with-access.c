/* A file of a preopened directory opens. */
#include "../check.h"

int main(void)
{
    FILE *file = fopen("file", "r");
    CHECK(file != NULL);
    CHECK(fclose(file) == 0);
}
