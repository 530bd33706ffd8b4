/*-------------------------------------------------------------------------
 *
 * mode.h
 *	  Modes of the server in which nothing of ours may start, leave or write.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_MODE_H
#define ACCESSREQ_MODE_H

#include "postgres.h"

/*
 * Why no worker may run in this mode of the server (a constant), or NULL: binary
 * upgrade, single-user.
 */
extern const char *mode_why_no_worker(void);

/* Raises 55000 under binary upgrade, for who would call the tenant or write a table. */
extern void mode_check_not_upgrading(void);

#endif							/* ACCESSREQ_MODE_H */
