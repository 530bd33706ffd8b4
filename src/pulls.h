/*-------------------------------------------------------------------------
 *
 * pulls.h
 *	  The pulls of a database's jobs, side by side in its worker.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_PULLS_H
#define ACCESSREQ_PULLS_H

#include "call.h"

typedef struct Pulls Pulls;

/* Its calls are in this set, beside others'. */
extern Pulls *pulls_open(CallSet *calls);

/* The jobs may have changed: look at them in the next turn. */
extern void pulls_look(Pulls *pulls);

/*
 * Do what can be done now, in units of work, without waiting for anything but
 * a lock for a second.
 */
extern void pulls_turn(Pulls *pulls);

/*
 * In how many milliseconds there is something to do, the network apart; -1: not
 * until the jobs change.  And is anything of the network under way?
 */
extern long pulls_wait(Pulls *pulls);
extern bool pulls_are_under_way(Pulls *pulls);

/* Take in a call that has ended; in a unit. */
extern void pulls_take(Pulls *pulls, Call *call);

/*
 * Give up all that is under way, through no fault of theirs: the locks are
 * gone, or memory was short.  It is taken up in a moment.
 */
extern void pulls_give_up(Pulls *pulls);

#endif							/* ACCESSREQ_PULLS_H */
