/*-------------------------------------------------------------------------
 *
 * unit.h
 *	  A unit of a worker's work: one short transaction.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_UNIT_H
#define ACCESSREQ_UNIT_H

#include "postgres.h"

/* Why a worker must not go on in its database. */
typedef enum UnitGround
{
	UNIT_OK,
	UNIT_NO_EXTENSION,			/* it is not there, or not the same any more */
	UNIT_UNSUITED,				/* its version is not this library's */
	UNIT_DISABLED,				/* ALTER DATABASE … SET accessreq.enabled = off */
	UNIT_ANOTHER_WORKER			/* the worker's lock is another's */
} UnitGround;

/* What an operation does; SPI is connected. */
typedef void (*UnitWork) (void *arg);

/*
 * Run "work" in a transaction.  Returns NULL, or its error, in the current
 * memory context; then nothing of it has happened.  Where the ground is not
 * firm "work" is not run, which is no error: see unit_ground().
 */
extern ErrorData *unit_run(UnitWork work, void *arg);
extern UnitGround unit_ground(void);

/*
 * Did a transaction fail as a whole?  Then all session locks are gone, until
 * the caller has drawn its conclusions.
 */
extern bool unit_lost_locks(void);
extern void unit_forget_lost_locks(void);

#endif							/* ACCESSREQ_UNIT_H */
