/* Two files of a directory are on one device, with an inode each. */
#include "../check.h"
#include <fcntl.h>
#include <sys/stat.h>

static struct stat status(const char *name)
{
    struct stat found;
    WORKS(fstat(WORKS(open(name, O_RDONLY)), &found));
    return found;
}

int main(void)
{
    struct stat one = status("file"), other = status("lseek.txt");
    CHECK(one.st_dev == other.st_dev);
    CHECK(one.st_ino != other.st_ino);
}
