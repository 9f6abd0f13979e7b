/* A container's files for engines whose WASI is not ours: contained.c. */
#ifndef SHIMD_CONTAINED_H
#define SHIMD_CONTAINED_H

/* Have links lead where the kernel says, in this process and what it forks from now on; before it gives up its privileges.
 * Returns an errno: then links that lead out of the directory that a path is relative to stay refused. The first is for
 * wasmtime, to which a read-only file system is EACCES then. */
int shimd_contained(void);
int shimd_contained_wasmedge(void);

/* Whether a path leaves the directory that it is relative to by its own words, whatever links are on it. */
int shimd_leads_out(const char *path);
#endif
