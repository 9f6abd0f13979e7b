/* The position moves with what stdio reads, once flushed, and where lseek puts it. */
#include "../check.h"
#include <unistd.h>

int main(void)
{
    char letters[4];
    FILE *file = fopen("lseek.txt", "r");
    CHECK(file != NULL);
    int fd = fileno(file);

    CHECK(fread(letters, 1, sizeof letters, file) == sizeof letters);
    fflush(file);
    CHECK(lseek(fd, 0, SEEK_CUR) == 4);

    CHECK(fread(letters, 1, 1, file) == 1);
    fflush(file);
    CHECK(lseek(fd, 0, SEEK_CUR) == 5);
    CHECK(letters[0] == 'e');

    CHECK(lseek(fd, 0, SEEK_SET) == 0);
    CHECK(lseek(fd, 0, SEEK_END) == 8);
    CHECK(fclose(file) == 0);
}
