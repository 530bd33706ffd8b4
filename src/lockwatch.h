/*-------------------------------------------------------------------------
 *
 * lockwatch.h
 *	  Who is told that somebody's lock keeps a worker from its work.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_LOCKWATCH_H
#define ACCESSREQ_LOCKWATCH_H

#include "postgres.h"

/* A unit has waited for a lock in vain.  Outside a transaction. */
extern void lockwatch_failed(void);

/*
 * What stands in the way, once that has gone on for a while; NULL: nothing does, or
 * not for long.  Static.
 */
extern const char *lockwatch_reason(void);

#endif							/* ACCESSREQ_LOCKWATCH_H */
