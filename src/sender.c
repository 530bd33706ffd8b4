/*-------------------------------------------------------------------------
 *
 * sender.c
 *	  Who sends: the actions of one owner for one server.
 *
 * The queue as it was last read, the sender's patience with its tenant, and its
 * token.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "accessreq.h"
#include "answer.h"
#include "dbsetting.h"
#include "delivery.h"
#include "job.h"
#include "miscadmin.h"
#include "sender.h"
#include "unit.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

/*
 * Pauses of a sender after a failure, doubled each time: somebody waits for it,
 * so the longest is shorter than a pull's.
 */
#define FIRST_PAUSE_US USECS_PER_SEC
#define LAST_PAUSE_US (60 * USECS_PER_SEC)

/* After an error in reading the queue. */
#define LOOK_PAUSE_US USECS_PER_SEC

#define DELIVER_ACTIONS "accessreq.deliver_actions"

/* --------------------------------------------------------------- its patience */

void
sender_pause(Sender *s, int64 us)
{
	s->paused_until = Max(s->paused_until, GetCurrentTimestamp() + us);
}

int64
sender_pause_us(int failures)
{
	return Min(FIRST_PAUSE_US << Min(failures, 10), LAST_PAUSE_US);
}

void
sender_failed(Sender *s, int64 us)
{
	sender_pause(s, Max(us, sender_pause_us(s->failures)));
	s->failures++;
	s->waits_for_budget = false;
}

void
sender_log(const Sender *s, const char *what, const char *message)
{
	ereport(LOG,
			(errcode(ERRCODE_FDW_ERROR),
			 errmsg("actions of role \"%s\" for server \"%s\": %s: %s",
					s->queue.owner, s->queue.server, what, message)));
}

void
sender_write_failed(Sender *s, const ErrorData *error)
{
	if (!unit_error_passes(error))
		sender_log(s, "could not write what became of them", error->message);
	s->write_after = GetCurrentTimestamp() + sender_pause_us(s->write_failures);
	s->write_failures++;
}

bool
sender_may_claim(const Sender *s)
{
	return s->d->delivers && !s->d->winding_up && !s->queue.held && s->more && !s->full && s->token_cxt == NULL;
}

bool
sender_claims_now(const Sender *s)
{
	return sender_may_claim(s) && s->paused_until <= GetCurrentTimestamp();
}

/* There is room for others, of whatever sender. */
void
sender_none_is_full(Deliveries *d)
{
	dlist_iter	iter;

	dlist_foreach(iter, &d->senders)
		dlist_container(Sender, node, iter.cur)->full = false;
}

/* ----------------------------------------------------------- it cannot be sent */

typedef struct Trouble
{
	Sender	   *s;
	int			sqlstate;
	const char *message;
	bool		final;
} Trouble;

/* Has the owner lost USAGE on the server?  In a subtransaction. */
static ErrorData *
usage_error(Sender *s)
{
	MemoryContext cxt = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	PG_TRY();
	{
		tenant_check_usage(s->queue.server_oid, s->queue.owner_oid);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(cxt);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(cxt);
	CurrentResourceOwner = owner;
	return error;
}

/*
 * What is due fails where the owner may not use the server any more.  It may
 * have been granted again since, and an action have been sent again: so which
 * they are is read first.  Everything else may be mended, and is noted alone.
 */
static void
fail_or_note(void *arg)
{
	Trouble    *t = arg;
	ActionSender *q = &t->s->queue;
	int			n;
	int64	   *ids = action_due_ids(q, &n);
	ErrorData  *error = t->sqlstate == ERRCODE_INSUFFICIENT_PRIVILEGE ? usage_error(t->s) : NULL;

	t->final = error != NULL && error->sqlerrcode == ERRCODE_INSUFFICIENT_PRIVILEGE;
	if (t->final)
		(void) action_fail_ids(ids, n, error->sqlerrcode, error->message);
	else
		action_note_trouble(q, t->sqlstate, t->message);
}

/* What is wrong with one action does not keep the others waiting. */
static void
fail_built(void *arg)
{
	Trouble    *t = arg;

	(void) action_fail_ids(t->s->building, t->s->nbuilding, t->sqlstate, t->message);
	t->final = true;
}

const Tenant *
sender_tenant(Sender *s, MemoryContext cxt)
{
	const Tenant *tenant = tenant_open(s->queue.server_oid, s->queue.owner_oid, cxt);

	call_check_may_change(tenant, "send what is queued");
	return tenant;
}

/* Claiming has failed: for good or for now, of all or of some. */
void
sender_cannot_send(Sender *s, ErrorData *error)
{
	Trouble		t = {s, error->sqlerrcode, error->message, false};
	bool		some = s->nbuilding > 0;

	if (unit_error_passes(error))
	{
		s->nbuilding = 0;
		sender_failed(s, 0);
		return;
	}
	if (unit_run(some ? fail_built : fail_or_note, &t) != NULL || !t.final)
		sender_failed(s, 0);
	sender_log(s, t.final ? "they fail" : "they wait", error->message);
	s->nbuilding = 0;
	/* whether there is more is seen when the queue is looked at */
	s->more = some;
	s->d->look = true;
}

/* -------------------------------------------------------------- the queue, read */

bool
sender_is_busy(const Sender *s)
{
	dlist_iter	iter;

	if (s->token_cxt != NULL || s->inquiry_cxt != NULL)
		return true;
	dlist_foreach(iter, &s->d->under_way)
	{
		if (dlist_container(Delivery, node, iter.cur)->sender == s)
			return true;
	}
	return false;
}

static Sender *
find_sender(Deliveries *d, const ActionSender *queue)
{
	dlist_iter	iter;

	dlist_foreach(iter, &d->senders)
	{
		Sender	   *s = dlist_container(Sender, node, iter.cur);

		if (s->queue.owner_oid == queue->owner_oid && s->queue.server_oid == queue->server_oid &&
			strcmp(s->queue.server, queue->server) == 0)
			return s;
	}
	return NULL;
}

static Sender *
new_sender(Deliveries *d, const ActionSender *queue)
{
	MemoryContext cxt = AllocSetContextCreate(d->cxt, "accessreq sender", ALLOCSET_SMALL_SIZES);
	Sender	   *s = MemoryContextAllocZero(cxt, sizeof(Sender));

	s->cxt = cxt;
	s->d = d;
	s->queue.server = MemoryContextStrdup(cxt, queue->server);
	s->queue.owner = MemoryContextStrdup(cxt, queue->owner);
	s->queue.owner_oid = queue->owner_oid;
	s->queue.server_oid = queue->server_oid;
	dlist_init(&s->unknown);
	dlist_push_tail(&d->senders, &s->node);
	return s;
}

static void
take_sender(Deliveries *d, const ActionSender *queue)
{
	Sender	   *s = find_sender(d, queue);
	char	   *server,
			   *owner;

	if (s == NULL)
		s = new_sender(d, queue);
	server = s->queue.server;
	owner = s->queue.owner;
	/* whose name may be another by now */
	if (strcmp(owner, queue->owner) != 0)
	{
		pfree(owner);
		owner = MemoryContextStrdup(s->cxt, queue->owner);
	}
	s->queue = *queue;
	s->queue.server = server;
	s->queue.owner = owner;
	s->listed = true;
	s->more = queue->due_at <= GetCurrentTimestamp();
	s->full = false;
	s->unread = queue->unknown;
	if (queue->retry_after != DT_NOBEGIN)
		s->paused_until = Max(s->paused_until, queue->retry_after);
}

/* The ids that are on their way from here, under whatever name of a server. */
static int64 *
ids_under_way(Deliveries *d, int *n)
{
	int			size = 16;
	int64	   *ids = palloc(sizeof(int64) * size);
	dlist_iter	iter;

	*n = 0;
	dlist_foreach(iter, &d->under_way)
	{
		const Delivery *delivery = dlist_container(Delivery, node, iter.cur);
		ListCell   *cell;

		foreach(cell, delivery->actions)
		{
			if (*n == size)
				ids = repalloc(ids, sizeof(int64) * (size *= 2));
			ids[(*n)++] = ((Action *) lfirst(cell))->id;
		}
	}
	return ids;
}

/*
 * What cannot be sent, and need not be tried, ends: its owner or server is gone
 * (whoever has its name by now), or the owner's right to enqueue it.  And what another worker, or this one before an error, left as
 * being sent becomes unknown.
 */
static void
tidy(void *arg)
{
	Sender	   *s = arg;
	ActionSender *q = &s->queue;
	int			n;
	int64	   *ours = ids_under_way(s->d, &n);

	if (!q->exists || !q->may_all)
		(void) action_fail_impossible(q);
	if (q->sending && action_lose_orphans(q, ours, n) > 0)
		q->unknown = s->unread = true;
	if (!q->exists)
		(void) action_give_up_unknown(q, 0, ERRCODE_UNDEFINED_OBJECT,
									  "its role or server does not exist any more, so nobody can look what became of it");
}

static void
tidy_sender(Sender *s)
{
	ActionSender *q = &s->queue;
	ErrorData  *error;

	if (q->exists && (q->may_all || !s->more) && !q->sending)
		return;
	error = unit_run(tidy, s);
	if (error != NULL && unit_ground() == UNIT_OK)
	{
		if (!unit_error_passes(error))
			sender_log(s, "could not end what cannot be sent", error->message);
		sender_failed(s, 0);
	}
	if (!q->exists)
	{
		q->due_at = DT_NOEND;
		q->unknown = s->more = false;
	}
}

/*
 * What ALTER DATABASE … SET says now wins over what this process has.  Where it
 * says nothing any more, the configuration file counts, which a process that
 * began with the former does not see.
 */
static bool
delivers(void)
{
	static bool was_set = false;
	bool		is_set = dbsetting_is_set(DELIVER_ACTIONS);

	if (was_set && !is_set)
		unit_settings_changed();
	was_set = is_set;
	return dbsetting_is_on(DELIVER_ACTIONS, accessreq_deliver_actions);
}

/* What a promotion or a recovery has left behind. */
static void
look_at_recovery(void *arg)
{
	List	   *servers = job_moved_timelines();
	ListCell   *cell;

	foreach(cell, servers)
		action_after_recovery(lfirst(cell));
}

static void
read_queue(void *arg)
{
	Deliveries *d = arg;
	List	   *senders;
	ListCell   *cell;
	dlist_iter	iter;

	d->delivers = delivers();
	senders = action_senders();
	dlist_foreach(iter, &d->senders)
	{
		Sender	   *s = dlist_container(Sender, node, iter.cur);

		s->listed = s->more = s->queue.unknown = false;
		s->queue.due_at = DT_NOEND;
	}
	foreach(cell, senders)
		take_sender(d, lfirst(cell));
}

static void
free_unlisted(Deliveries *d)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &d->senders)
	{
		Sender	   *s = dlist_container(Sender, node, iter.cur);

		if (s->listed || sender_is_busy(s) || s->paused_until > GetCurrentTimestamp())
			continue;
		dlist_delete(&s->node);
		MemoryContextDelete(s->cxt);
	}
}

void
sender_look(Deliveries *d)
{
	ErrorData  *error = NULL;
	dlist_iter	iter;

	d->look = false;
	d->looked_at = GetCurrentTimestamp();
	if (!d->recovered)
		error = unit_run(look_at_recovery, d);
	if (error == NULL && unit_ground() == UNIT_OK)
	{
		d->recovered = true;
		error = unit_run(read_queue, d);
	}
	if (unit_ground() != UNIT_OK)
		return;
	if (error != NULL)
	{
		if (!unit_error_passes(error))
			ereport(LOG,
					(errcode(error->sqlerrcode),
					 errmsg("could not read the queue of actions of this database: %s",
							error->message)));
		d->look = true;
		d->look_after = d->looked_at + LOOK_PAUSE_US;
		return;
	}
	dlist_foreach(iter, &d->senders)
		tidy_sender(dlist_container(Sender, node, iter.cur));
	free_unlisted(d);
}

/* ------------------------------------------------------------------------- tokens */

void
sender_close_token(Sender *s)
{
	if (s->token_cxt == NULL)
		return;
	if (s->token != NULL)
		call_free(s->token);
	MemoryContextDelete(s->token_cxt);
	s->token_cxt = NULL;
	s->token = NULL;
	s->token_came = false;
}

static void
ask_for_token(void *arg)
{
	Sender	   *s = arg;
	CallSpec	spec = {0};

	s->token_cxt = AllocSetContextCreate(s->cxt, "accessreq sender's token", ALLOCSET_SMALL_SIZES);
	spec.tenant = sender_tenant(s, s->token_cxt);
	spec.share = CALL_OF_ACTION;
	spec.patience_us = 1;
	s->token = call_start_token(s->d->calls, &spec);
	s->d->to_send = true;
}

void
sender_start_token(Sender *s)
{
	ErrorData  *error;

	s->wants_token = false;
	error = unit_run(ask_for_token, s);
	if (error == NULL)
		return;
	sender_close_token(s);
	sender_cannot_send(s, error);
}

static void
note_trouble(void *arg)
{
	Trouble    *t = arg;

	action_note_trouble(&t->s->queue, t->sqlstate, t->message);
}

/* None is to be had: that is noted on the first action, and tried again. */
void
sender_take_token(Sender *s)
{
	const ApiError *failed = call_error(s->token);

	if (failed != NULL)
	{
		Trouble		t = {s, failed->sqlstate, answer_error_line(failed), false};

		sender_log(s, "they wait", failed->message);
		sender_failed(s, call_limited_us(s->token));
		(void) unit_run(note_trouble, &t);
	}
	sender_close_token(s);
}
