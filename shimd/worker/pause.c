/* shimd-pause: the first process of a pod. It holds the pod's namespaces, waits for the orphans of a shared pid namespace,
 * and exits with 0 when it is asked to: what the pause program of Kubernetes' images does, without an image. Linked
 * statically, since its root is empty.
 *
 * Called by the name shimd-exec it becomes another program: a hook of an image's, whose interpreter may be
 * /proc/self/exe, which is this then, in memory, and not a file of the node's (CVE-2019-5736). */
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int count, char **words) {
    sigset_t signals;
    if (count > 2 && strcmp(words[0], "shimd-exec") == 0) {
        execv(words[1], words + 2);
        _exit(errno == ENOENT ? 127 : 126);
    }
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGCHLD);
    /* Blocked, they are kept even for process 1, which the kernel spares what has a default action. */
    if (sigprocmask(SIG_SETMASK, &signals, NULL) != 0) _exit(1);
    for (;;) {
        int number = sigwaitinfo(&signals, NULL); /* negative: a freezer or a debugger came between */
        if (number == SIGTERM || number == SIGINT) _exit(0);
        while (number == SIGCHLD && waitpid(-1, NULL, WNOHANG) > 0) continue;
    }
}
