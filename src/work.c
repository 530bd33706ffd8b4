/*-------------------------------------------------------------------------
 *
 * work.c
 *	  What a worker does: pulls and deliveries, over one set of calls.
 *
 * Deliveries come first: somebody may be waiting for what he has just
 * committed.  Each has its turn, which ends where it would have to wait; then
 * the worker waits for all of them together.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "call.h"
#include "deliveries.h"
#include "miscadmin.h"
#include "names.h"
#include "pulls.h"
#include "unit.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "work.h"

/*
 * Answers are waited for so long before the worker leaves: a command that wants
 * the database waits for twice that.
 */
#define WIND_UP_MS 1000

/* The network is looked at again after an error in doing so. */
#define TROUBLE_PAUSE_MS 1000
#define PASSING_PAUSE_MS 250

struct Work
{
	MemoryContext cxt;
	MemoryContext turn;			/* reset with each turn */
	CallSet    *calls;
	Pulls	   *pulls;
	Deliveries *deliveries;
};

Work *
work_open(void)
{
	MemoryContext cxt = AllocSetContextCreate(TopMemoryContext, "accessreq work",
											  ALLOCSET_DEFAULT_SIZES);
	Work	   *work = MemoryContextAllocZero(cxt, sizeof(Work));

	work->cxt = cxt;
	work->turn = AllocSetContextCreate(cxt, "accessreq turn", ALLOCSET_DEFAULT_SIZES);
	names_open();
	work->calls = call_open(cxt);
	work->pulls = pulls_open(work->calls);
	work->deliveries = deliveries_open(work->calls);
	return work;
}

void
work_look(Work *work)
{
	pulls_look(work->pulls);
	deliveries_look(work->deliveries);
}

bool
work_sleep(Work *work, long timeout_ms)
{
	return call_sleep(work->calls, timeout_ms);
}

typedef struct Taking
{
	Work	   *work;
	long		next_ms;
	bool		any;
} Taking;

/* Send what can be sent, and take in what has come. */
static void
take_calls(void *arg)
{
	Taking	   *t = arg;
	Call	   *call;

	while ((call = call_poll(t->work->calls, &t->next_ms)) != NULL)
	{
		t->any = true;
		if (!deliveries_take(t->work->deliveries, call))
			pulls_take(t->work->pulls, call);
	}
}

/* Poll the network; returns when to poll again. */
static long
poll(Work *work)
{
	Taking		t = {work, -1, false};
	ErrorData  *error;

	if (!pulls_are_under_way(work->pulls) && !deliveries_are_under_way(work->deliveries))
		return -1;
	error = unit_run(take_calls, &t);
	if (error != NULL && unit_error_passes(error))
		return PASSING_PAUSE_MS;
	if (error != NULL)
	{
		/* memory, most likely: nobody knows what was taken in */
		pulls_give_up(work->pulls);
		deliveries_give_up(work->deliveries);
		return TROUBLE_PAUSE_MS;
	}
	return t.any ? 0 : t.next_ms;
}

static long
turn(Work *work)
{
	long		wait = -1;

	/* a latch that wakes us can be lost in the wait for a lock */
	if (pulls_are_under_way(work->pulls))
		deliveries_look_sometimes(work->deliveries);
	if (deliveries_turn(work->deliveries))
		wait = poll(work);
	if (unit_lost_locks())
		pulls_give_up(work->pulls);
	if (unit_ground() != UNIT_OK)
		return 0;
	pulls_turn(work->pulls);
	if (unit_ground() != UNIT_OK)
		return 0;
	if (wait != 0)
		wait = poll(work);
	wait = unit_sooner(wait, names_turn());
	if (unit_lost_locks())
		pulls_give_up(work->pulls);
	if (unit_ground() != UNIT_OK)
		return 0;
	wait = unit_sooner(wait, deliveries_wait(work->deliveries));
	return unit_sooner(wait, pulls_wait(work->pulls));
}

long
work_turn(Work *work)
{
	MemoryContext old = MemoryContextSwitchTo(work->turn);
	long		wait = turn(work);

	MemoryContextSwitchTo(old);
	MemoryContextReset(work->turn);
	return wait;
}

void
work_wind_up(Work *work)
{
	TimestampTz end = GetCurrentTimestamp() + WIND_UP_MS * INT64CONST(1000);

	call_stop_sending(work->calls);
	deliveries_wind_up(work->deliveries);
	while (deliveries_are_sending(work->deliveries) && unit_ground() == UNIT_OK)
	{
		long		left = unit_ms_until(end, GetCurrentTimestamp());
		long		wait;

		if (left == 0)
			break;
		(void) deliveries_turn(work->deliveries);
		wait = poll(work);
		if (wait != 0)
			(void) work_sleep(work, wait < 0 ? left : Min(wait, left));
	}
}
