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
#include "datatype/timestamp.h"

/* Why a worker must not go on in its database. */
typedef enum UnitGround
{
	UNIT_OK,
	UNIT_NO_EXTENSION,			/* it is not there, or not the same any more */
	UNIT_UNSUITED,				/* its version is not this library's */
	UNIT_DISABLED,				/* ALTER DATABASE … SET accessreq.enabled = off */
	UNIT_ANOTHER_WORKER,		/* the worker's lock is another's */
	UNIT_CHANGED				/* a setting of the database is not what it came with */
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

/* For work that finds UNIT_CHANGED: the worker has to be replaced. */
extern void unit_settings_changed(void);

/*
 * The worker is about to leave for what a setting says: from now on that is no
 * reason not to write down what became of its last requests.
 */
extern void unit_wind_up(void);

/*
 * Does this error pass by itself, and say nothing about what was to be done (a
 * lock, a deadlock)?  With the locks gone nothing can go on as it was: then none
 * does.
 */
extern bool unit_error_passes(const ErrorData *error);

/*
 * Waits between units, in milliseconds: the sooner of two, -1 being for ever;
 * until a time.
 */
extern long unit_sooner(long a, long b);
extern long unit_ms_until(TimestampTz when, TimestampTz now);

/*
 * Did a transaction fail as a whole?  Then all session locks are gone, until
 * the caller has drawn its conclusions.
 */
extern bool unit_lost_locks(void);
extern void unit_forget_lost_locks(void);

#endif							/* ACCESSREQ_UNIT_H */
