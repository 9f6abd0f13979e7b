/* Symbolic links in a container lead where the kernel says: links.c. */
#ifndef SHIMD_LINKS_H
#define SHIMD_LINKS_H

/* In this process and what it forks, from now on; before it gives up its privileges. Returns an errno: then links that
 * lead out of the directory that a path is relative to stay refused. */
int shimd_follow_links(void);

/* Whether a path leaves the directory that it is relative to by its own words, whatever links are on it. */
int shimd_leads_out(const char *path);
#endif
