/*-------------------------------------------------------------------------
 *
 * deliveries.c
 *	  Sending what is queued in table action, in a database's worker.
 *
 * The actions of one owner for one server are a sender's (sender.c).  A sender
 * that has something to do gets a token, claims as many actions as may leave at
 * this moment (their mark "sending" is on disk before they do), and writes down
 * what became of those that have ended, all in one transaction a turn
 * (delivery.c).  Then it looks in the tenant for those whose answer was lost
 * (seek.c).
 *
 * What the tenant did not accept goes back into the queue, and the sender
 * pauses; an answer that was lost makes it pause too, lest a tenant in trouble
 * turn a whole queue into unknown actions.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "delivery.h"
#include "miscadmin.h"
#include "seek.h"
#include "sender.h"
#include "unit.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* While there is something to send the queue is looked at so often. */
#define LOOK_INTERVAL_US USECS_PER_SEC

/* While there is work, commits of others do not make us look more often. */
#define MIN_LOOK_INTERVAL_US (20 * INT64CONST(1000))

/* What is too old is looked for so often, and deleted so many rows at a time. */
#define EXPIRE_INTERVAL_US USECS_PER_HOUR
#define EXPIRE_ROWS 1000

/* -------------------------------------------------------------------- lifetime */

Deliveries *
deliveries_open(CallSet *calls)
{
	MemoryContext cxt = AllocSetContextCreate(TopMemoryContext, "accessreq deliveries",
											  ALLOCSET_DEFAULT_SIZES);
	Deliveries *d = MemoryContextAllocZero(cxt, sizeof(Deliveries));

	d->cxt = cxt;
	d->calls = calls;
	d->look = true;
	dlist_init(&d->senders);
	dlist_init(&d->under_way);
	return d;
}

void
deliveries_look(Deliveries *d)
{
	d->look = true;
}

void
deliveries_look_sometimes(Deliveries *d)
{
	if (GetCurrentTimestamp() - d->looked_at >= LOOK_INTERVAL_US)
		d->look = true;
}

/* ------------------------------------------------------------------ what is too old */

static void
expire(void *arg)
{
	Deliveries *d = arg;

	d->expiring = action_expire(EXPIRE_ROWS) == EXPIRE_ROWS;
}

/* A batch; after an error not before the next hour. */
static void
expire_some(Deliveries *d)
{
	TimestampTz now = GetCurrentTimestamp();

	if (!d->expiring && now - d->expired_at < EXPIRE_INTERVAL_US)
		return;
	d->expired_at = now;
	if (unit_run(expire, d) != NULL)
		d->expiring = false;
}

/* ------------------------------------------------------------------------- a turn */

/*
 * Has it something to send, now or once another is settled?  Then it is looked
 * at now and then: its rights may go, and what it waits for may come.
 */
static bool
wants_looks(const Sender *s)
{
	return s->listed && !s->queue.held && s->d->delivers &&
		(s->more || s->queue.due_at <= GetCurrentTimestamp());
}

/* When the queue is to be looked at; -1: when somebody says so. */
static long
next_look(Deliveries *d, TimestampTz now)
{
	dlist_iter	iter;
	bool		busy = !dlist_is_empty(&d->under_way);
	long		wait = -1;

	if (d->look)
		return unit_ms_until(Max(d->look_after, busy ? d->looked_at + MIN_LOOK_INTERVAL_US : 0), now);
	dlist_foreach(iter, &d->senders)
	{
		const Sender *s = dlist_container(Sender, node, iter.cur);

		if (wants_looks(s))
			return unit_ms_until(d->looked_at + LOOK_INTERVAL_US, now);
		if (s->queue.due_at > now && s->queue.due_at != DT_NOEND && !s->queue.held && d->delivers)
			wait = unit_sooner(wait, unit_ms_until(s->queue.due_at, now));
	}
	return wait;
}

static void
turn_sender(Sender *s)
{
	if (s->token_came)
		sender_take_token(s);
	delivery_serve(s);
	if (s->wants_token && s->token_cxt == NULL)
		sender_start_token(s);
	seek_turn(s);
}

/* Of the budgets for which they wait pulls leave them a part. */
static void
tell_pulls(Deliveries *d)
{
	LimiterKey	budgets[CALL_MAX_YIELDED];
	int			n = 0;
	dlist_iter	iter;

	dlist_foreach(iter, &d->senders)
	{
		const Sender *s = dlist_container(Sender, node, iter.cur);

		if (s->waits_for_budget && sender_may_claim(s) && n < CALL_MAX_YIELDED)
			budgets[n++] = s->budget;
	}
	call_yield(d->calls, budgets, n);
}

bool
deliveries_turn(Deliveries *d)
{
	dlist_iter	iter;

	d->to_send = false;
	if (next_look(d, GetCurrentTimestamp()) == 0)
		sender_look(d);
	if (unit_ground() != UNIT_OK)
		return false;
	delivery_go_on_merging(d);
	dlist_foreach(iter, &d->senders)
	{
		if (unit_ground() != UNIT_OK)
			return false;
		turn_sender(dlist_container(Sender, node, iter.cur));
		CHECK_FOR_INTERRUPTS();
	}
	if (unit_ground() == UNIT_OK)
		expire_some(d);
	tell_pulls(d);
	return d->to_send;
}

static long
sender_waits(Sender *s, TimestampTz now)
{
	long		wait = -1;
	TimestampTz inquiry = seek_next(s);

	if (s->token_came || (s->inquiry != NULL &&
						  (inquiry_has_news(s->inquiry) || inquiry_is_over(s->inquiry))))
		return 0;
	if (sender_may_claim(s))
		wait = unit_ms_until(s->paused_until, now);
	if (inquiry != DT_NOEND)
		wait = unit_sooner(wait, unit_ms_until(inquiry, now));
	return wait;
}

long
deliveries_wait(Deliveries *d)
{
	TimestampTz now = GetCurrentTimestamp();
	long		wait = next_look(d, now);
	dlist_iter	iter;

	if (d->expiring)
		return 0;
	dlist_foreach(iter, &d->senders)
		wait = unit_sooner(wait, sender_waits(dlist_container(Sender, node, iter.cur), now));
	dlist_foreach(iter, &d->under_way)
	{
		const Delivery *delivery = dlist_container(Delivery, node, iter.cur);

		/* what could not be written down is tried again after a pause */
		if (delivery->ended)
			wait = unit_sooner(wait, unit_ms_until(delivery->sender->write_after, now));
	}
	return wait;
}

bool
deliveries_are_under_way(Deliveries *d)
{
	dlist_iter	iter;

	dlist_foreach(iter, &d->senders)
	{
		if (sender_is_busy(dlist_container(Sender, node, iter.cur)))
			return true;
	}
	return false;
}

void
deliveries_wind_up(Deliveries *d)
{
	d->winding_up = true;
}

bool
deliveries_are_sending(Deliveries *d)
{
	return !dlist_is_empty(&d->under_way);
}

void
deliveries_give_up(Deliveries *d)
{
	dlist_iter	iter;

	delivery_give_up(d);
	dlist_foreach(iter, &d->senders)
	{
		Sender	   *s = dlist_container(Sender, node, iter.cur);

		sender_close_token(s);
		seek_give_up(s);
	}
	d->look = true;
}

bool
deliveries_take(Deliveries *d, Call *call)
{
	dlist_iter	iter;

	dlist_foreach(iter, &d->under_way)
	{
		Delivery   *delivery = dlist_container(Delivery, node, iter.cur);

		if (delivery->call == call)
		{
			delivery->ended = true;
			return true;
		}
	}
	dlist_foreach(iter, &d->senders)
	{
		Sender	   *s = dlist_container(Sender, node, iter.cur);

		if (s->token == call)
		{
			s->token_came = true;
			return true;
		}
		if (s->inquiry != NULL && inquiry_take(s->inquiry, call))
			return true;
	}
	return false;
}
