/*-------------------------------------------------------------------------
 *
 * work.h
 *	  What a worker does: pulls and deliveries, over one set of calls.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_WORK_H
#define ACCESSREQ_WORK_H

#include "postgres.h"

typedef struct Work Work;

extern Work *work_open(void);

/* Jobs or the queue may have changed: look at them in the next turn. */
extern void work_look(Work *work);

/*
 * Do what can be done now, in units of work, without waiting for anything but
 * a lock for a second.  Returns how many milliseconds to sleep at most, 0: not
 * at all, -1: nothing is to be done until something changes.
 */
extern long work_turn(Work *work);

/*
 * The worker is about to leave: send nothing more, and wait a moment for the
 * answers to what is on its way, so that nobody has to look for it.
 */
extern void work_wind_up(Work *work);

/* Sleep, but for the network and the latch; true where the latch was set. */
extern bool work_sleep(Work *work, long timeout_ms);

#endif							/* ACCESSREQ_WORK_H */
