/* A directory lists its two files, each once, under the inode numbers that stat gives, which differ. */
#include "../check.h"
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

static const char *const names[] = {"file-0", "file-1"};

static int number(const char *name)
{
    for (int i = 0; i < 2; i++)
        if (strcmp(name, names[i]) == 0)
            return i;
    return -1;
}

int main(void)
{
    int fd = WORKS(open("fopendir.dir", O_RDONLY | O_DIRECTORY));
    DIR *directory = fdopendir(fd);
    ino_t inodes[2];
    int seen[2] = {0, 0};

    CHECK(directory != NULL);
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        struct stat status;
        int i = number(entry->d_name);
        if (entry->d_name[0] == '.')
            continue;
        CHECK(i != -1);
        seen[i]++;
        inodes[i] = entry->d_ino;
        WORKS(fstatat(fd, entry->d_name, &status, AT_SYMLINK_NOFOLLOW));
        CHECK(status.st_ino == entry->d_ino);
    }
    WORKS(closedir(directory));
    CHECK(seen[0] == 1 && seen[1] == 1);
    CHECK(inodes[0] != inodes[1]);
}
