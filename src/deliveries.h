/*-------------------------------------------------------------------------
 *
 * deliveries.h
 *	  Sending what is queued in table action, in a database's worker.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_DELIVERIES_H
#define ACCESSREQ_DELIVERIES_H

#include "call.h"

typedef struct Deliveries Deliveries;

/* Its calls are in this set, beside others'. */
extern Deliveries *deliveries_open(CallSet *calls);

/* The queue may have changed: look at it in the next turn. */
extern void deliveries_look(Deliveries *d);

/* The same, unless it was looked at within a second. */
extern void deliveries_look_sometimes(Deliveries *d);

/*
 * Do what can be done now, in units of work.  True where it has calls that are
 * to be sent: the network should be polled at once.
 */
extern bool deliveries_turn(Deliveries *d);

/*
 * In how many milliseconds there is something to do, the network apart; -1: not
 * until the queue changes.  And is anything of the network under way?
 */
extern long deliveries_wait(Deliveries *d);
extern bool deliveries_are_under_way(Deliveries *d);

/* Send nothing more, but note what becomes of what is on its way, if anything is. */
extern void deliveries_wind_up(Deliveries *d);
extern bool deliveries_are_sending(Deliveries *d);

/*
 * Give up what is on its way: nobody knows what was taken in.  It is looked for
 * as what a crash leaves behind.
 */
extern void deliveries_give_up(Deliveries *d);

/* A call has ended: is it one of its?  In a unit; raises nothing. */
extern bool deliveries_take(Deliveries *d, Call *call);

#endif							/* ACCESSREQ_DELIVERIES_H */
