/* shimd-pause: the first process of a pod. It holds the pod's namespaces, waits for the orphans of a shared pid namespace,
 * and exits with 0 when it is asked to: what the pause program of Kubernetes' images does, without an image. Linked
 * statically, since its root is empty. */
#include <signal.h>
#include <stddef.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void) {
    sigset_t signals;
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
