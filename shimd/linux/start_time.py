"""The start time of a process, which names it for good together with its pid."""


def start_time(pid: int) -> int:
    """Clock ticks since boot: field 22 of ``/proc/PID/stat`` (proc_pid_stat(5)).

    :raises OSError: there is no such process
    """
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[19])
