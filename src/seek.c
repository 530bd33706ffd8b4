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
#include "seek.h"
#include "sender.h"
#include "unit.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "verdict.h"

/* The first look, and the longest pause between two. */
#define FIRST_INQUIRY_US USECS_PER_SEC
#define LAST_INQUIRY_US (5 * USECS_PER_MINUTE)

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

/* Those whose time has not come: their ids. */
static int64 *
ids_not_due(Sender *s, int *n)
{
	TimestampTz now = GetCurrentTimestamp();
	int64	   *ids;
	dlist_iter	iter;

	*n = 0;
	dlist_foreach(iter, &s->unknown)
		(*n)++;
	ids = palloc(sizeof(int64) * Max(*n, 1));
	*n = 0;
	dlist_foreach(iter, &s->unknown)
	{
		Unknown    *u = dlist_container(Unknown, node, iter.cur);

		u->listed = u->next_at > now;
		if (u->listed)
			ids[(*n)++] = u->id;
	}
	return ids;
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
	int			n;
	int64	   *without = ids_not_due(s, &n);

	actions = action_unknown(&s->queue, without, n, INQUIRY_ACTIONS);
	foreach(cell, actions)
	{
		if (meet_unknown(s, lfirst(cell))->next_at <= now)
			due = lappend(due, lfirst(cell));
	}
	forget_unlisted(s);
	s->queue.unknown = !dlist_is_empty(&s->unknown);
	if (due == NIL)
		return;
	s->inquiry_cxt = AllocSetContextCreate(s->cxt, "accessreq sender's inquiry",
										   ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(s->inquiry_cxt);
	tenant = tenant_open(tenant_resolve(s->queue.server, s->queue.owner_oid),
						 s->queue.owner_oid, s->inquiry_cxt);
	s->inquiry = inquiry_open(tenant, s->d->calls, due);
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

	return psprintf("%s; looked %d times among what its owner's token has requested since an hour before %s, and no item has the token %s in its clientMetadata. Access that is already held is never listed. accessreq.retry_action() sends it again",
					sent ? "the answer was lost" :
					"it may have been sent before the database was promoted or recovered",
					u->looks, timestamptz_to_str(since), found->action->client_token);
}

/* Write down a finding; true where it is settled, or back in the queue. */
static bool
note_found(const Found *found, const Unknown *u)
{
	ActionOutcome outcome = {0};
	TimestampTz sent_at = found->action->sent_at;
	Finding		finding = found->finding;
	TimestampTz now = GetCurrentTimestamp();
	Verdict		verdict;

	finding.items_before = u->items;
	verdict = verdict_of_finding(found->action, &finding,
								 now - (sent_at == DT_NOBEGIN ? u->since : sent_at));
	outcome.settled = true;
	outcome.answer = evidence_datum(found->evidence);
	switch (verdict)
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

static void
end_inquiry(Sender *s)
{
	Ending		e = {s, NIL, CurrentMemoryContext};
	ErrorData  *error = unit_run(note_all_found, &e);

	if (unit_ground() != UNIT_OK)
		return;
	if (error != NULL)
	{
		sender_unit_failed(s, error);
		close_inquiry(s);
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
	s->failures = 0;
	s->more = true;
	s->queue.unknown = !dlist_is_empty(&s->unknown);
}

static void
fail_inquiry(Sender *s, int64 limited_us, const char *message)
{
	if (s->failures == 0)
		sender_log(s, "could not look what became of them", message);
	sender_failed(s, limited_us);
	close_inquiry(s);
}

/* Is there one whose time has come, or of which nothing is known here yet? */
TimestampTz
seek_next(Sender *s)
{
	TimestampTz next = DT_NOEND;
	dlist_iter	iter;

	if (!s->queue.unknown || s->inquiry_cxt != NULL || s->d->winding_up)
		return DT_NOEND;
	if (dlist_is_empty(&s->unknown))
		return s->paused_until;
	dlist_foreach(iter, &s->unknown)
		next = Min(next, dlist_container(Unknown, node, iter.cur)->next_at);
	return Max(next, s->paused_until);
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
