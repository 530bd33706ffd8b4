/*-------------------------------------------------------------------------
 *
 * delivery.h
 *	  Actions on their way.  Internal to deliveries.c and its parts.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_DELIVERY_H
#define ACCESSREQ_DELIVERY_H

#include "sender.h"

/* One call under way, and the actions that it carries. */
typedef struct Delivery
{
	dlist_node	node;
	MemoryContext cxt;
	Sender	   *sender;
	const Tenant *tenant;
	List	   *actions;		/* Action */
	Call	   *call;
	bool		reads_config;	/* what is to be merged with is on its way */
	bool		ended;
	bool		heeded;			/* has its sender drawn its conclusions? */
} Delivery;

/* Write down what has ended and claim more, together: one flush of the disk. */
extern void delivery_serve(Sender *s);

/* Configurations that were read are merged and put back. */
extern void delivery_go_on_merging(Deliveries *d);

/* Give those up that have not ended: they are found as orphans. */
extern void delivery_give_up(Deliveries *d);

/* How many are under way to a server, whosever they are. */
extern int	delivery_count(Deliveries *d, Oid serverid);

#endif							/* ACCESSREQ_DELIVERY_H */
