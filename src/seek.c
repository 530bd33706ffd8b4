/*-------------------------------------------------------------------------
 *
 * seek.c
 *	  Looking for actions whose answer was lost, until they are settled.
 *
 * Each is looked for after a moment, and then less and less often, until its
 * verdict is clear.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "answer.h"
#include "job.h"
#include "seek.h"
#include "sender.h"
#include "token.h"
#include "unit.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "verdict.h"

/* The first look, and the longest pause between two. */
#define FIRST_INQUIRY_US USECS_PER_SEC
#define LAST_INQUIRY_US (5 * USECS_PER_MINUTE)

/* What was sent so long ago is shown by now. */
#define LONG_AGO_US (30 * USECS_PER_MINUTE)

/* For so long the tenant may refuse to show what is looked for. */
#define REFUSED_US (10 * USECS_PER_MINUTE)

#define ANSWER_LOST "the answer was lost"
#define PERHAPS_SENT "it may have been sent before the database was promoted or recovered"

/* So many in one inquiry. */
#define INQUIRY_ACTIONS 200

/* An action that is unknown, between two inquiries. */
typedef struct Unknown
{
	dlist_node	node;
	int64		id;
	int			attempts;
	int			looks;
	int			items;			/* that the last look found; -1: none was made */
	TimestampTz since;			/* when it was first met here */
	TimestampTz next_at;
	bool		listed;
} Unknown;

static void
close_inquiry(Sender *s)
{
	if (s->inquiry_cxt == NULL)
		return;
	if (s->inquiry != NULL)
		inquiry_close(s->inquiry);
	MemoryContextDelete(s->inquiry_cxt);
	s->inquiry_cxt = NULL;
	s->inquiry = NULL;
}

static Datum
evidence_datum(const char *evidence)
{
	const char *problem;

	return answer_lossy_jsonb(json_parse(evidence, strlen(evidence), CurrentMemoryContext, &problem));
}

/* ---------------------------------------------------------------------- inquiries */

static Unknown *
find_unknown(Sender *s, const Action *action)
{
	dlist_iter	iter;

	dlist_foreach(iter, &s->unknown)
	{
		Unknown    *u = dlist_container(Unknown, node, iter.cur);

		if (u->id == action->id && u->attempts == action->attempts)
			return u;
	}
	return NULL;
}

/* What was sent just now shows up in a moment, and not before. */
static Unknown *
meet_unknown(Sender *s, const Action *action)
{
	Unknown    *u = find_unknown(s, action);

	if (u == NULL)
	{
		u = MemoryContextAllocZero(s->cxt, sizeof(Unknown));
		u->id = action->id;
		u->attempts = action->attempts;
		u->items = -1;
		u->since = GetCurrentTimestamp();
		u->next_at = action->sent_at == DT_NOBEGIN ? u->since : action->sent_at + FIRST_INQUIRY_US;
		dlist_push_tail(&s->unknown, &u->node);
	}
	u->listed = true;
	return u;
}

static void
forget_unknown(Unknown *u)
{
	dlist_delete(&u->node);
	pfree(u);
}

/* Those whose time has not come: their ids and tries. */
static int
list_not_due(Sender *s, int64 **ids, int **attempts)
{
	TimestampTz now = GetCurrentTimestamp();
	dlist_iter	iter;
	int			n = 0;

	dlist_foreach(iter, &s->unknown)
		n++;
	*ids = palloc(sizeof(int64) * Max(n, 1));
	*attempts = palloc(sizeof(int) * Max(n, 1));
	n = 0;
	dlist_foreach(iter, &s->unknown)
	{
		Unknown    *u = dlist_container(Unknown, node, iter.cur);

		u->listed = u->next_at > now;
		if (!u->listed)
			continue;
		(*ids)[n] = u->id;
		(*attempts)[n++] = u->attempts;
	}
	return n;
}

/* Those that are due and were not found any more have been settled otherwise. */
static void
forget_unlisted(Sender *s)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &s->unknown)
	{
		Unknown    *u = dlist_container(Unknown, node, iter.cur);

		if (!u->listed)
			forget_unknown(u);
	}
}

static void
begin_inquiry(void *arg)
{
	Sender	   *s = arg;
	TimestampTz now = GetCurrentTimestamp();
	List	   *due = NIL;
	List	   *actions;
	ListCell   *cell;
	MemoryContext old;
	const Tenant *tenant;
	int64	   *without;
	int		   *attempts;
	int			n = list_not_due(s, &without, &attempts);

	actions = action_unknown(&s->queue, without, attempts, n, INQUIRY_ACTIONS);
	foreach(cell, actions)
	{
		if (meet_unknown(s, lfirst(cell))->next_at <= now)
			due = lappend(due, lfirst(cell));
	}
	/* of a full batch there may be more, which are met the next time */
	s->unread = list_length(actions) == INQUIRY_ACTIONS;
	if (!s->unread)
		forget_unlisted(s);
	s->queue.unknown = !dlist_is_empty(&s->unknown);
	if (due == NIL)
		return;
	s->inquiry_cxt = AllocSetContextCreate(s->cxt, "accessreq sender's inquiry",
										   ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(s->inquiry_cxt);
	tenant = tenant_open(s->queue.server_oid, s->queue.owner_oid, s->inquiry_cxt);
	s->inquiry = inquiry_open(tenant, s->d->calls, due, job_dates(s->queue.server));
	inquiry_go_on(s->inquiry);
	MemoryContextSwitchTo(old);
	s->d->to_send = true;
}

static void
go_on_inquiring(void *arg)
{
	Sender	   *s = arg;

	inquiry_go_on(s->inquiry);
	s->d->to_send = true;
}

static const char *
why_not_done(const Found *found)
{
	if (found->finding.items == 0 && found->action->kind != ACTION_MERGE_CONFIG)
		return "the answer was lost, and the tenant lists no such access request";
	if (found->action->kind == ACTION_MERGE_CONFIG)
		return "the answer was lost, and the configuration does not have what was to be merged";
	return psprintf("the answer was lost, and it was not carried out: the items are %s", found->what);
}

/* What was looked for, how and how often. */
static const char *
what_was_tried(const Found *found, const Unknown *u)
{
	bool		sent = found->action->sent_at != DT_NOBEGIN;
	TimestampTz since = sent ? found->action->sent_at : found->action->enqueued_at;

	if (found->refused != NULL)
		return psprintf("%s; looked %d times, and the tenant does not show it: %s",
						sent ? ANSWER_LOST : PERHAPS_SENT, u->looks, found->refused);
	if (found->action->kind == ACTION_CLOSE)
		return psprintf("%s; looked %d times, and the items are %s. The tenant closes by a job of its own: pulls will tell, and settle this as done, or in a day as failed",
						sent ? ANSWER_LOST : PERHAPS_SENT, u->looks, found->what);
	if (found->action->kind != ACTION_CREATE)
		return psprintf("%s; looked %d times, and it is not in place: another may have changed it since",
						sent ? ANSWER_LOST : PERHAPS_SENT, u->looks);
	return psprintf("%s; looked %d times among what its owner's token has requested since an hour before %s, and in the rows stored here, and no item has the token %s in its clientMetadata. Should a pull bring one, this is settled as done. Access that is already held is never listed. accessreq.retry_action() sends it again",
					sent ? ANSWER_LOST : PERHAPS_SENT,
					u->looks, timestamptz_to_str(since), found->action->client_token);
}

/*
 * For how long the tenant has had time to show what it did.  Its answer may have
 * been waited for, so that does not count; but what was sent long ago, before
 * this process, has shown.
 */
static int64
age_us(const Found *found, const Unknown *u)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz sent_at = found->action->sent_at;

	if (sent_at != DT_NOBEGIN && now - sent_at > LONG_AGO_US)
		return now - sent_at;
	return now - u->since;
}

static Verdict
verdict_of(const Found *found, const Unknown *u)
{
	Finding		finding = found->finding;

	finding.items_before = u->items;
	if (found->refused != NULL)
		return age_us(found, u) > REFUSED_US ? VERDICT_GIVE_UP : VERDICT_LOOK;
	return verdict_of_finding(found->action, &finding, age_us(found, u));
}

/* Write down a finding; true where it is settled, or back in the queue. */
static bool
note_found(const Found *found, const Unknown *u)
{
	ActionOutcome outcome = {0};

	outcome.settled = true;
	outcome.answer = evidence_datum(found->evidence);
	switch (verdict_of(found, u))
	{
		case VERDICT_DONE:
			outcome.state = "done";
			outcome.ids = found->ids;
			outcome.nids = found->nids;
			break;
		case VERDICT_FAILED:
			outcome.state = "failed";
			outcome.error = why_not_done(found);
			outcome.error_code = ERRCODE_CONNECTION_FAILURE;
			break;
		case VERDICT_AGAIN:
			outcome.state = "queued";
			outcome.settled = false;
			break;
		case VERDICT_GIVE_UP:
			outcome.state = "unknown";
			outcome.error = what_was_tried(found, u);
			outcome.error_code = ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN;
			break;
		default:
			return false;
	}
	action_note(found->action, "unknown", &outcome);
	return true;
}

/* The next look at those that nothing can be said of yet. */
static void
look_again(Unknown *u, const Found *found)
{
	u->items = found->finding.items;
	u->next_at = GetCurrentTimestamp() +
		Min(FIRST_INQUIRY_US << Min(u->looks - 1, 10), LAST_INQUIRY_US);
}

/* What a unit has settled: forgotten when it is committed. */
typedef struct Ending
{
	Sender	   *s;
	List	   *settled;		/* Unknown */
	MemoryContext cxt;
} Ending;

static void
note_all_found(void *arg)
{
	Ending	   *e = arg;

	const Tenant *tenant = inquiry_tenant(e->s->inquiry);

	/*
	 * In another tenant nothing that is not there means anything.  Where the
	 * mapping was altered meanwhile nobody knows whose answer it is: it is asked
	 * again.
	 */
	(void) job_check_tenant(tenant, e->s->queue.server, token_tenant(tenant));
	inquiry_see_stored(e->s->inquiry, e->s->queue.server);
	e->settled = NIL;
	for (int i = 0; i < inquiry_size(e->s->inquiry); i++)
	{
		Found		found = inquiry_found(e->s->inquiry, i);
		Unknown    *u = find_unknown(e->s, found.action);
		Unknown		now;

		if (u == NULL)
			continue;
		now = *u;
		now.looks++;
		if (note_found(&found, &now))
		{
			MemoryContext old = MemoryContextSwitchTo(e->cxt);

			e->settled = lappend(e->settled, u);
			MemoryContextSwitchTo(old);
		}
	}
}

/* It is asked again later; what can be sent is sent meanwhile. */
static void
fail_inquiry(Sender *s, int64 limited_us, const char *message)
{
	if (s->seek_failures == 0)
		sender_log(s, "could not look what became of them", message);
	s->seek_after = GetCurrentTimestamp() + Max(limited_us, sender_pause_us(s->seek_failures));
	s->seek_failures++;
	s->unread = true;
	close_inquiry(s);
}

static void
end_inquiry(Sender *s)
{
	Ending		e = {s, NIL, CurrentMemoryContext};
	ErrorData  *error = unit_run(note_all_found, &e);

	if (unit_ground() != UNIT_OK)
		return;
	if (error != NULL)
	{
		fail_inquiry(s, 0, error->message);
		return;
	}
	for (int i = 0; i < inquiry_size(s->inquiry); i++)
	{
		Found		found = inquiry_found(s->inquiry, i);
		Unknown    *u = find_unknown(s, found.action);

		if (u == NULL)
			continue;
		u->looks++;
		if (list_member_ptr(e.settled, u))
			forget_unknown(u);
		else
			look_again(u, &found);
	}
	close_inquiry(s);
	s->seek_failures = 0;
	s->more = true;
	s->queue.unknown = !dlist_is_empty(&s->unknown);
}

/* Is there one whose time has come, or of which nothing is known here yet? */
TimestampTz
seek_next(Sender *s)
{
	TimestampTz next = DT_NOEND;
	dlist_iter	iter;

	if (!s->queue.unknown || s->inquiry_cxt != NULL || s->d->winding_up)
		return DT_NOEND;
	if (s->unread)
		return s->seek_after;
	dlist_foreach(iter, &s->unknown)
		next = Min(next, dlist_container(Unknown, node, iter.cur)->next_at);
	return next == DT_NOEND ? next : Max(next, s->seek_after);
}

/*
 * The owner may not look any more, or has no mapping: after a while nobody can
 * be expected to mend that.
 */
static void
give_up(void *arg)
{
	Sender	   *s = arg;

	(void) action_give_up_unknown(&s->queue, REFUSED_US, ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN,
								  "the answer was lost, and its owner cannot look what became of it any more");
}

static bool
is_of_rights(const ErrorData *error)
{
	return error->sqlerrcode == ERRCODE_INSUFFICIENT_PRIVILEGE ||
		error->sqlerrcode == ERRCODE_UNDEFINED_OBJECT;
}

void
seek_turn(Sender *s)
{
	ErrorData  *error = NULL;

	if (s->inquiry == NULL && seek_next(s) <= GetCurrentTimestamp())
		error = unit_run(begin_inquiry, s);
	else if (s->inquiry != NULL && inquiry_has_news(s->inquiry))
		error = unit_run(go_on_inquiring, s);
	if (unit_ground() != UNIT_OK)
		return;
	if (error != NULL && is_of_rights(error))
		(void) unit_run(give_up, s);
	if (error != NULL)
		fail_inquiry(s, 0, error->message);
	else if (s->inquiry != NULL && inquiry_is_over(s->inquiry))
	{
		const ApiError *failed = inquiry_error(s->inquiry);

		if (failed != NULL)
			fail_inquiry(s, inquiry_limited_us(s->inquiry), pstrdup(failed->message));
		else
			end_inquiry(s);
	}
}

void
seek_give_up(Sender *s)
{
	close_inquiry(s);
	s->unread = true;
}
