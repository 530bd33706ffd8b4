/*-------------------------------------------------------------------------
 *
 * pulls.h
 *	  The pulls of a database's jobs, side by side in its worker.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_PULLS_H
#define ACCESSREQ_PULLS_H

#include "postgres.h"

typedef struct Pulls Pulls;

extern Pulls *pulls_open(void);

/* The jobs may have changed: look at them in the next turn. */
extern void pulls_look(Pulls *pulls);

/*
 * Do what can be done now, in units of work, without waiting for anything but
 * a lock for a second.  Returns how many milliseconds to sleep at most, 0: not
 * at all, -1: nothing is to be done until the jobs change.
 */
extern long pulls_turn(Pulls *pulls);

/* Sleep, but for the network and the latch; true where the latch was set. */
extern bool pulls_sleep(Pulls *pulls, long timeout_ms);

#endif							/* ACCESSREQ_PULLS_H */
