/* What an app does with files: files COMMAND PATH [ARGUMENT]. Says "errno" and its number if something fails. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int failed(void) {
    printf("errno %d\n", errno);
    return 1;
}

static int put(const char *path, const char *text, int flags) {
    int fd = open(path, O_WRONLY | O_CREAT | flags, 0644);
    if (fd < 0 || write(fd, text, strlen(text)) < 0 || fsync(fd))
        return failed();
    return close(fd) ? failed() : 0;
}

static int get(const char *path) {
    char buffer[4096];
    ssize_t count;
    int fd = open(path, O_RDONLY);
    if (fd < 0)
        return failed();
    while ((count = read(fd, buffer, sizeof buffer)) > 0)
        fwrite(buffer, 1, (size_t)count, stdout);
    return count < 0 ? failed() : 0;
}

static int list(const char *path) {
    DIR *directory = opendir(path);
    if (!directory)
        return failed();
    for (struct dirent *entry; (entry = readdir(directory));)
        printf("%s\n", entry->d_name);
    return closedir(directory);
}

/* A log as servers keep it: rotated while it is open, and written to both before and after. */
static int rotate(const char *log, const char *old) {
    int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0644);
    if (fd < 0 || write(fd, "one\n", 4) != 4 || rename(log, old) || write(fd, "two\n", 4) != 4 || close(fd))
        return failed();
    return put(log, "three\n", O_APPEND);
}

/* A file that is renamed, then removed, while it is open. */
static int remove_renamed(const char *path, const char *other) {
    int fd = open(path, O_RDWR | O_CREAT, 0644);
    if (fd < 0 || rename(path, other) || unlink(other) || write(fd, "x", 1) != 1)
        return failed();
    return 0;
}

/* Two names of one log, both open, written to in turn: for the engine they are two files, for the kernel one. */
static int alternate(const char *path, const char *other) {
    int first = open(path, O_WRONLY | O_CREAT | O_APPEND, 0644);
    if (first < 0 || link(path, other))
        return failed();
    int second = open(other, O_WRONLY | O_APPEND);
    for (int i = 0; i < 2; i++)
        if (second < 0 || write(first, "first\n", 6) != 6 || write(second, "second\n", 7) != 7)
            return failed();
    return fcntl(first, F_SETFL, 0) || pwrite(first, "FIRST", 5, 0) != 5 ? failed() : 0;
}

static int times(const char *path, const char *other) {
    struct timespec wanted[2] = {{1000, 0}, {2000, 0}};
    int fd = open(path, O_RDWR);
    return fd < 0 || futimens(fd, wanted) || utimensat(AT_FDCWD, other, wanted, 0) ? failed() : 0;
}

/* What "rm -r" and "mv" of other systems try. What was refused is still there. */
static int refused(const char *directory, const char *full) {
    struct stat status;
    if (!unlink(directory) || !rename(directory, full) || stat(directory, &status) || rmdir(directory))
        return failed();
    return 0;
}

static int number(const char *path) {
    struct stat status;
    if (stat(path, &status))
        return failed();
    printf("%llu %llu\n", (unsigned long long)status.st_ino, (unsigned long long)status.st_nlink);
    return 0;
}

int main(int argc, char **argv) {
    const char *command = argc > 1 ? argv[1] : "", *path = argc > 2 ? argv[2] : "", *other = argc > 3 ? argv[3] : "";
    if (!strcmp(command, "put"))
        return put(path, other, O_TRUNC);
    if (!strcmp(command, "append"))
        return put(path, other, O_APPEND);
    if (!strcmp(command, "get"))
        return get(path);
    if (!strcmp(command, "list"))
        return list(path);
    if (!strcmp(command, "mkdir"))
        return mkdir(path, 0755) ? failed() : 0;
    if (!strcmp(command, "unlink"))
        return unlink(path) ? failed() : 0;
    if (!strcmp(command, "rename"))
        return rename(path, other) ? failed() : 0;
    if (!strcmp(command, "symlink"))
        return symlink(other, path) ? failed() : 0;
    if (!strcmp(command, "link"))
        return link(path, other) ? failed() : 0;
    if (!strcmp(command, "alternate"))
        return alternate(path, other);
    if (!strcmp(command, "rotate"))
        return rotate(path, other);
    if (!strcmp(command, "remove-renamed"))
        return remove_renamed(path, other);
    if (!strcmp(command, "times"))
        return times(path, other);
    if (!strcmp(command, "refused"))
        return refused(path, other);
    if (!strcmp(command, "number"))
        return number(path);
    for (int fd = 0; fd < 3; fd++)
        printf("%d%s\n", fd, isatty(fd) ? " is a terminal" : "");
    return 0;
}
