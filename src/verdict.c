/*-------------------------------------------------------------------------
 *
 * verdict.c
 *	  What an answer, or what was found by looking, means for an action.
 *
 * A POST is sent again only where it was provably not accepted.  An answer that
 * was lost is never made up for by sending again, but by looking.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "datatype/timestamp.h"
#include "verdict.h"

/*
 * How long the tenant may take until its list shows what it has accepted: a
 * cancel is shown at once, or some seconds later; a new request comes up after
 * some seconds, later under load.  A close is carried out by a job of its own:
 * it is looked for so long, and then left to the pulls.
 */
#define CANCEL_SHOWS_US (10 * USECS_PER_SEC)
#define CLOSE_LOOKED_FOR_US (60 * USECS_PER_SEC)
#define CREATE_SHOWS_US (10 * USECS_PER_MINUTE)

/* Where the answer says so little, the status says whose fault it was. */
#define HTTP_UNAUTHORIZED 401

/*
 * The token, or the client's secret: that says nothing about the action, and
 * somebody will mend it.
 */
static bool
is_about_the_token(const ApiError *error)
{
	return error->status == HTTP_UNAUTHORIZED || error->sqlstate == ERRCODE_INVALID_PASSWORD;
}

Verdict
verdict_of_answer(const ApiError *error, int n)
{
	if (error == NULL)
		return VERDICT_DONE;
	switch (error->outcome)
	{
		case API_ACCEPTED:
			return VERDICT_DONE;
		case API_LIMITED:
		case API_NOT_SENT:
			return VERDICT_AGAIN;
		case API_LOST:
			return VERDICT_UNKNOWN;
		case API_DENIED:
			if (is_about_the_token(error))
				return VERDICT_AGAIN;
			break;
		case API_REFUSED:
			break;
	}
	/* one that it does not know, or may not be cancelled, fails all of them */
	return n > 1 ? VERDICT_ALONE : VERDICT_FAILED;
}

/*
 * A create is found by its token, or not at all: the tenant lists nothing for
 * access that is already held.  Its items come up one by one.
 */
static Verdict
of_create(const Finding *f, int64 age_us)
{
	if (f->items >= f->wanted && f->items > 0)
		return VERDICT_DONE;
	if (f->items > 0 && f->items == f->items_before)
		return VERDICT_DONE;
	return age_us >= CREATE_SHOWS_US ? VERDICT_GIVE_UP : VERDICT_LOOK;
}

/* What of a request can still be cancelled is; the rest is past its approval. */
static Verdict
of_cancel(const Finding *f, int64 age_us)
{
	if (f->cancelled > 0)
		return VERDICT_DONE;
	if (f->items > 0 && f->open == 0)
		return VERDICT_FAILED;
	return age_us >= CANCEL_SHOWS_US ? VERDICT_FAILED : VERDICT_LOOK;
}

/*
 * All of its requests have to be closed.  When the tenant's job gets to them nobody
 * knows, so that they are open says nothing: later pulls tell.
 */
static Verdict
of_close(const Action *action, const Finding *f, int64 age_us)
{
	if (f->open == 0 && f->requests >= action->nids)
		return VERDICT_DONE;
	return age_us >= CLOSE_LOOKED_FOR_US ? VERDICT_GIVE_UP : VERDICT_LOOK;
}

Verdict
verdict_of_finding(const Action *action, const Finding *finding, int64 age_us)
{
	Verdict		verdict = VERDICT_FAILED;

	switch (action->kind)
	{
		case ACTION_CREATE:
			return of_create(finding, age_us);
		case ACTION_CANCEL:
			verdict = of_cancel(finding, age_us);
			break;
		case ACTION_CLOSE:
			verdict = of_close(action, finding, age_us);
			break;
		case ACTION_MERGE_CONFIG:
			if (finding->in_place)
				return VERDICT_DONE;
			/* it may have been, and have been changed again by one after it */
			return action->sent_at == DT_NOBEGIN ? VERDICT_GIVE_UP : VERDICT_FAILED;
	}
	/* it may never have been sent, and has not been carried out: now it can be */
	if (verdict == VERDICT_FAILED && action->sent_at == DT_NOBEGIN)
		return VERDICT_AGAIN;
	return verdict;
}
