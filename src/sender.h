/*-------------------------------------------------------------------------
 *
 * sender.h
 *	  Who sends: the actions of one owner for one server.  Internal to
 *	  deliveries.c and its parts.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_SENDER_H
#define ACCESSREQ_SENDER_H

#include "action.h"
#include "api.h"
#include "deliveries.h"
#include "inquiry.h"
#include "lib/ilist.h"

typedef struct Sender
{
	dlist_node	node;
	MemoryContext cxt;
	Deliveries *d;
	ActionSender queue;			/* as it was last read; texts in cxt */
	bool		listed;
	bool		more;			/* there may be something to claim */
	bool		full;			/* and as many are under way as may be */
	bool		wants_token;
	TimestampTz paused_until;	/* it claims nothing before */
	int			failures;		/* in a row */
	bool		waits_for_budget;
	LimiterKey	budget;			/* for this one, which was asked last */
	int64		building[API_MAX_BULK_CANCEL];	/* whose call is being made */
	int			nbuilding;
	TimestampTz write_after;	/* what has ended is not written down before */
	int			write_failures;

	MemoryContext token_cxt;	/* NULL: no token is on its way */
	Call	   *token;
	bool		token_came;

	MemoryContext inquiry_cxt;	/* NULL: none is under way */
	Inquiry    *inquiry;
	dlist_head	unknown;		/* Unknown, see seek.c */
	bool		unread;			/* there may be others that are not in it */
	TimestampTz seek_after;		/* nothing is looked for before */
	int			seek_failures;
} Sender;

struct Deliveries
{
	MemoryContext cxt;
	CallSet    *calls;
	dlist_head	senders;
	dlist_head	under_way;		/* Delivery */
	bool		look;
	TimestampTz look_after;		/* but not before, after an error */
	bool		recovered;		/* was looked at what a promotion left behind? */
	bool		delivers;		/* deliver_actions, when it was last looked at */
	bool		winding_up;		/* the worker is about to leave */
	bool		to_send;		/* calls were started in this turn */
	TimestampTz looked_at;
	TimestampTz expired_at;
	bool		expiring;
};

/* Read the queue: who has something to send. */
extern void sender_look(Deliveries *d);

/* Could it claim something, the time apart; and now? */
extern bool sender_may_claim(const Sender *s);
extern bool sender_claims_now(const Sender *s);

/* Is anything of its on its way? */
extern bool sender_is_busy(const Sender *s);

/* There is room for others, of whatever sender. */
extern void sender_none_is_full(Deliveries *d);

/*
 * Wait for so long; and after a failure, longer each time, or as long as the
 * tenant asked for (0: it did not).
 */
extern void sender_pause(Sender *s, int64 us);
extern void sender_failed(Sender *s, int64 us);

/* How long to pause after so many failures before. */
extern int64 sender_pause_us(int failures);

/* What became of its actions could not be written down: later. */
extern void sender_write_failed(Sender *s, const ErrorData *error);

/*
 * The tenant as its owner uses it.  Raises what the owner's own call would, of
 * rights, options and hosts.
 */
extern const Tenant *sender_tenant(Sender *s, MemoryContext cxt);

/* Claiming has failed, for good or for now, of all or some: noted on its actions. */
extern void sender_cannot_send(Sender *s, ErrorData *error);

extern void sender_log(const Sender *s, const char *what, const char *message);

/* Ask for the token that it wants; take the one that came. */
extern void sender_start_token(Sender *s);
extern void sender_take_token(Sender *s);

/* Let go of one that is on its way. */
extern void sender_close_token(Sender *s);

#endif							/* ACCESSREQ_SENDER_H */
